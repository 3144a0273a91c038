"""How Sphinx builds the documentation (``make docs``): nothing is loaded from elsewhere, and a warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

project = "Coppice"
author = "The Coppice authors"
copyright = "The Coppice authors"  # noqa: A001 - Sphinx's name for it
html_title = "Coppice"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "site_build",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
# Of shell sessions with a JSON text over several lines, the lexer says that it gave up; it shows them all the same.
suppress_warnings = ["misc.highlighting_failure"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
python_use_unqualified_type_names = True
smartquotes = False  # two hyphens are an option
# Prompts are not copied with a command.
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_favicon = "../app/web/static/mark.svg"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "source_view_link": "",
    "light_css_variables": {"color-brand-primary": "#1f6f4a", "color-brand-content": "#1f6f4a"},
    "dark_css_variables": {"color-brand-primary": "#6fd3a0", "color-brand-content": "#6fd3a0"},
}
