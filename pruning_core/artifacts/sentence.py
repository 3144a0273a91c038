"""The files by which sentence-transformers knows how token states become one embedding."""

from __future__ import annotations

import json
from pathlib import Path

from pruning_core.tasks.base import Pooling

_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))


def write_sentence_modules(folder: Path, *, hidden: int, pooling: Pooling) -> None:
    """Say in sentence-transformers' own files what the pipeline did: pool, then scale to unit length.

    Where the source had such files they were copied, and stay. The names are those that every version since 2.0 reads.

    Args:
        folder: The checkpoint.
        hidden: Width of an embedding.
        pooling: How the pipeline pooled.
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
