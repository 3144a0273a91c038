"""``coppice expand``: the dense layout of a compressed checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coppice.commands.places import require_free
from coppice.console import ExitCode, fail, note
from coppice.installation import DISTRIBUTION, require


def expand(
    folder: Annotated[Path, typer.Argument(help="A bundle's folder compressed/, with its config.json.")],
    out: Annotated[Path, typer.Option(help="Where to write; must not exist, or be empty.")],
) -> None:
    """Write the dense layout of a compressed checkpoint: every tensor as it was, bit for bit. A corrupt checkpoint is refused.

    Example: coppice expand ./bundle/compressed --out ./dense
    """
    require("torch", f"{DISTRIBUTION}[load]")
    if not folder.is_dir():
        fail(f"there is no folder {folder}; name the folder compressed/ of a bundle", ExitCode.BAD_INPUT)
    require_free(out)
    from pruning_core.artifacts import compressed
    from pruning_core.errors import PruningError

    try:
        compressed.expand(folder, out)
    except PruningError as error:
        fail(f"{folder}: {error.message}", ExitCode.BAD_INPUT)
    note(f"{out} holds the dense layout")
