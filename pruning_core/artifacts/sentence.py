"""The files by which sentence-transformers knows how token states become one embedding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pruning_core.checks.recipe import MODULES, POOLINGS, PoolingStep, Recipe, UnitStep

# What a module's folder may hold that sentence-transformers reads: settings, and weights that are no pickle.
_MODULE_FILES = ("config.json", "model.safetensors")


def write_sentence_modules(source: Path, folder: Path, recipe: Recipe, *, hidden: int) -> None:
    """Write sentence-transformers' files for what the pipeline did: those of the source as they are, or new ones.

    Args:
        source: The source checkpoint's folder.
        folder: The checkpoint's folder; the source's other files have been copied.
        recipe: What the source's files say of embeddings.
        hidden: Width of a token's state.
    """
    for step in recipe.steps:
        for name in _MODULE_FILES:
            if (source / step.folder / name).is_file():
                (folder / step.folder).mkdir(exist_ok=True)
                shutil.copyfile(source / step.folder / name, folder / step.folder / name)
    if recipe.own:
        return
    listed = [("", "Transformer")]
    for step in recipe.steps:
        match step:
            case PoolingStep():
                listed.append((step.folder, "Pooling"))
                if step.width is None or not (folder / step.folder / "config.json").is_file():
                    _write_pooling(folder / step.folder, step, hidden)
            case UnitStep():
                listed.append((step.folder, "Normalize"))
            case _:
                raise AssertionError("a model without modules.json has no other modules")
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(listed)
    ]
    (folder / MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def _write_pooling(folder: Path, step: PoolingStep, hidden: int) -> None:
    """Write a pooling's settings, in the names that every version since 2.0 reads. None reads settings without a width."""
    modes = {key: mode in step.modes for key, mode in POOLINGS.items() if mode in ("cls", "mean", "max", *step.modes)}
    folder.mkdir(exist_ok=True)
    text = json.dumps({"word_embedding_dimension": hidden} | modes, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
