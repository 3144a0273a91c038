"""llama.cpp where it is installed: its quantizer, and a look at what it makes of a file."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pruning_core.artifacts.exports.gguf.base import NotHeld
from pruning_core.artifacts.process import run_limited
from pruning_core.engines.registry import Found, find
from pruning_core.shapes import Float

_log = logging.getLogger(__name__)
_SCRIPT = Path(__file__).with_name("in_llama_cpp.py")
# Logits are large: they lie beside the file, on the disk that bundles are written to.
_SCRATCH = ".llama-cpp-"
# Seconds for a job: to start, and for each gigabyte of the file.
_START_S, _GIGABYTE_S = 120.0, 240.0
HOW_TO_GET_IT = (
    "`make engines` installs llama.cpp into .venv/engines/llama-cpp; COPPICE_ENGINES_DIR names another folder of engines"
)


def interpreter(engines: Path | None = None) -> Path | None:
    """Return the interpreter that has llama.cpp; None where there is none.

    Args:
        engines: The folder of engines' environments; None: see `pruning_core.engines.registry.engines_folder`.
    """
    found = find("llama.cpp", engines, tries=False)
    return found.interpreter if isinstance(found, Found) else None


@dataclass(frozen=True, slots=True)
class Seen:
    """What llama.cpp makes of a file.

    Attributes:
        tokens: The tokens of each text.
        template: The chat template; None without one.
        outputs: Logits of all positions, text after text; or an embedding of each text.
    """

    tokens: list[list[int]]
    template: str | None
    outputs: Float[np.ndarray[Any, Any], "n v"]


def look(python: Path, file: Path, texts: Sequence[str], ids: Sequence[Sequence[int]], *, width: int | None) -> Seen:
    """Load a file in llama.cpp, in a process of its own.

    Args:
        python: The interpreter that has llama.cpp.
        file: The file.
        texts: Texts to be tokenised.
        ids: Tokens to run the model on.
        width: Values of an embedding; None for logits.

    Raises:
        NotHeld: llama.cpp does not load or run it.
    """
    file = file.absolute()  # the process runs elsewhere
    length = max(64, *(len(own) for own in ids))
    job = {"do": "read", "path": str(file), "texts": texts, "ids": ids, "width": width, "embeddings": width is not None}
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=_SCRATCH) as folder:
        answer = _done(python, Path(folder), job | {"length": length}, file)
        if answer.get("failed"):
            raise NotHeld("llama.cpp does not load the file that was written")
        outputs = np.load(Path(folder) / "outputs.npy", allow_pickle=False)
    return Seen(answer["tokens"], answer["template"], outputs)


def quantize(python: Path, source: Path, file: Path, number: int) -> None:
    """Quantize a file by llama.cpp's own quantizer.

    Args:
        python: The interpreter that has llama.cpp.
        source: A file of floating point numbers.
        file: Where to write.
        number: llama.cpp's number of the file's type.

    Raises:
        NotHeld: It does not quantize the file.
    """
    source, file = source.absolute(), file.absolute()
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=_SCRATCH) as folder:
        job = {"do": "quantize", "source": str(source), "path": str(file), "ftype": number}
        if _done(python, Path(folder), job, source).get("failed"):
            raise NotHeld("llama.cpp's quantizer does not take the file")


def _done(python: Path, folder: Path, job: Mapping[str, Any], file: Path) -> dict[str, Any]:
    # Threads of ggml wait by spinning: as many as cores stand still where others work too.
    (folder / "job.json").write_text(json.dumps({**job, "threads": max(1, torch.get_num_threads() // 2)}), encoding="utf-8")
    log, limit = folder / "log", _START_S + _GIGABYTE_S * file.stat().st_size / 1e9
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}
    code = run_limited([str(python), "-I", str(_SCRIPT), str(folder)], cwd=folder, env=env, log=log, limit_s=limit)
    if code is None:
        raise NotHeld(f"llama.cpp was not done after {limit:.0f} seconds")
    try:
        return cast("dict[str, Any]", json.loads((folder / "answer.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        _log.warning("llama.cpp ended with code %s: %s", code, log.read_text(encoding="utf-8", errors="replace")[-4000:])
        raise NotHeld(f"llama.cpp ended with code {code} and without an answer") from None
