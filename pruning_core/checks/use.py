"""How a model is used: where its users may get something else than they expect. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pruning_core.checks.embedder import notes_on_embeddings
from pruning_core.checks.module_settings import shown
from pruning_core.errors import ModelUnreadable
from pruning_core.files.model_json import read_object
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS

_LARGEST_BYTES = 8 * 2**20


def notes_on_use(task: TaskSpec, folder: Path) -> tuple[str, ...]:
    """Say how a model's results come about, as far as its files tell and a user may not expect it.

    Raises:
        ModelUnreadable: The files of sentence-transformers are broken, or say what is not known here.
    """
    return (*notes_on_embeddings(task.type, folder), *_notes_on_writing(task, folder))


def _notes_on_writing(task: TaskSpec, folder: Path) -> list[str]:
    """Say where texts are written in another way than `generate` of the model's users writes them."""
    if not KINDS[task.type].takes_prefix:
        return []
    found: list[str] = []
    prefix = _prefix(task.type, _entries(folder, "config.json"))
    if prefix and not task.prefix:
        found.append(
            f"config.json has the prefix {shown(prefix)} for {task.type}, and this job puts none in front of the texts; if the "
            "model was trained with it, give it as task.prefix"
        )
    settings = _entries(folder, "generation_config.json")
    beams = settings.get("num_beams")
    beams = beams if isinstance(beams, int) and beams > 1 else None
    if beams is not None or settings.get("do_sample") is True:
        usual = f"with {beams} beams" if beams is not None else "by drawing tokens"
        found.append(
            f"the texts of the report are written greedily; users' generate writes {usual}, as generation_config.json says"
        )
    return found


def _prefix(task_type: str, config: Mapping[str, Any]) -> str:
    """Return the prefix that a configuration has for a task; for translation, any pair of languages will do."""
    entries: object = config.get("task_specific_params")
    for name, given in cast("dict[str, object]", entries).items() if isinstance(entries, dict) else ():
        if name.startswith(task_type) and isinstance(given, dict):
            prefix = cast("dict[str, object]", given).get("prefix")
            if isinstance(prefix, str):
                return prefix
    return ""


def _entries(folder: Path, name: str) -> Mapping[str, Any]:
    """Return the entries of a file; none where it cannot be read, which other checks refuse."""
    try:
        return read_object(folder, name, most_bytes=_LARGEST_BYTES) or {}
    except ModelUnreadable:
        return {}
