"""What the site has beside its pages: the command line's reference, links out of `docs`, and the API browser.

A Sphinx extension, for `docs/conf.py` alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from sphinx.application import Sphinx

from app.web.documentation import BROWSER, INLINE_SCRIPTS, SWAGGER

_DOCS = Path(__file__).resolve().parent
_ROOT = _DOCS.parent
_COMMANDS = _DOCS / "reference" / "command-line.md"
_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("builder-inited", write_commands)
    app.connect("source-read", name_files_outside)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_commands(_app: Sphinx) -> None:
    """Write the reference of the command line, by typer itself."""
    command = [sys.executable, "-m", "typer", "coppice.cli", "utils", "docs", "--name", "coppice", "--title", "Command line"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    if not _COMMANDS.is_file() or _COMMANDS.read_text(encoding="utf-8") != done.stdout:
        _COMMANDS.write_text(done.stdout, encoding="utf-8")


def name_files_outside(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn links to files of the repository that are no pages into their names: there is nothing to follow on the site."""
    folder = (_DOCS / docname).parent

    def named(found: re.Match[str]) -> str:
        words, target = found.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(_DOCS) or not path.exists():  # what is nowhere is left for Sphinx to complain of
            return found.group(0)
        name = path.relative_to(_ROOT).as_posix()
        return f"`{name}`" if words.strip("`") in {name, target, path.name} else f"{words} (`{name}`)"

    source[0] = _LINK.sub(named, source[0])


def finish(app: Sphinx, failure: Exception | None) -> None:
    """Add the API browser and the contract, and list the scripts within pages, which the service allows by their hashes."""
    if failure is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    _write_browser(out / "api")
    scripts: set[str] = set()
    for page in out.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        scripts.update(_INLINE.findall(text))
        page.write_text(_accessible(text), encoding="utf-8")
    hashes = sorted(base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    (out / INLINE_SCRIPTS).write_text(json.dumps(hashes), encoding="utf-8")


def _accessible(page: str) -> str:
    """Complete what the theme leaves out: levels of its headings, names of its landmarks, blocks that keys can scroll."""
    for given, wanted in (
        ('role="heading"><span class="caption-text"', 'role="heading" aria-level="2"><span class="caption-text"'),
        ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="Pages">'),
        ('<aside class="toc-drawer">', '<aside class="toc-drawer" aria-label="On this page">'),
        ('<div class="highlight"><pre>', '<div class="highlight"><pre tabindex="0">'),
    ):
        page = page.replace(given, wanted)
    return page


def _write_browser(folder: Path) -> None:
    from app.main import create_app
    from app.settings import Settings

    for package, where in (BROWSER, SWAGGER):
        shutil.copytree(str(files(package).joinpath(where)), folder, dirs_exist_ok=True)
    contract = create_app(Settings(data_dir=folder.parent / ".nothing")).openapi()
    (folder / "openapi.json").write_text(json.dumps(contract), encoding="utf-8")
