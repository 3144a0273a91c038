"""The files by which sentence-transformers knows how token states become one embedding."""

from __future__ import annotations

import json
from pathlib import Path

from pruning_core.tasks.base import Pooling

_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))


def write_sentence_modules(folder: Path, *, hidden: int, pooling: Pooling) -> None:
    """Write sentence-transformers' files for what the pipeline did: pool, then scale to unit length.

    Files that were copied from the source stay as they are. The names written here are read by every version since 2.0.

    Args:
        folder: The checkpoint's folder.
        hidden: Width of an embedding.
        pooling: The pipeline's pooling.
    """
    if (folder / "modules.json").exists():
        return
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(_MODULES)
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    modes = {f"pooling_mode_{mode}": mode.startswith(pooling) for mode in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": hidden} | modes, indent=2) + "\n", encoding="utf-8"
    )
