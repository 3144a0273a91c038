"""The format gguf: files for llama.cpp, one for each type that is asked for, proven there where it is installed."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
from gguf import PoolingType
from torch import Tensor

from pruning_core.artifacts.exports.base import Exported
from pruning_core.artifacts.exports.gguf.base import NotHeld, Value
from pruning_core.artifacts.exports.gguf.interpreter import HOW_TO_GET_IT, interpreter, quantize
from pruning_core.artifacts.exports.gguf.parameters import decoder_parameters, encoder_parameters, pooling_of, window
from pruning_core.artifacts.exports.gguf.proof import Reference, prove, reference
from pruning_core.artifacts.exports.gguf.rotary import rotary_of
from pruning_core.artifacts.exports.gguf.tensors import Laid, laid_out, state_of
from pruning_core.artifacts.exports.gguf.tokens import Vocabulary, vocabulary
from pruning_core.artifacts.exports.gguf.write import TYPES, compare, data_bytes, write_file
from pruning_core.engines.llama_cpp import family_name, reason_against
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.report.engines import ExportReport
from pruning_core.tasks.base import TaskModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
FOLDER = "gguf"
# Types that llama.cpp's own quantizer makes, from a file in the type of the stored weights.
_QUANTIZER: Mapping[str, gguf.LlamaFileType] = {
    "Q4_K_M": gguf.LlamaFileType.MOSTLY_Q4_K_M,
    "Q5_K_M": gguf.LlamaFileType.MOSTLY_Q5_K_M,
    "Q6_K": gguf.LlamaFileType.MOSTLY_Q6_K,
}
_STORED: Mapping[str, str] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_CLASSIFIES = ("text-classification", "multi-label-classification", "regression")


@dataclass(frozen=True, slots=True)
class _Model:
    """A checkpoint as llama.cpp reads it: its tensors, and the keys of its head."""

    task: TaskModel
    laid: Laid
    state: Mapping[str, Tensor]
    values: Mapping[str, Value]
    pooling: PoolingType | None
    words: Vocabulary
    notes: tuple[str, ...] = ()


def export_gguf(asked: Exported) -> tuple[ExportReport, ...]:
    """Write the files that a request asks for. What goes wrong is a row with its reason.

    Raises:
        OutOfMemory: There is no memory for it.
        StorageFull: There is no room for a file.
    """
    try:
        model, dense = _model(asked.pruned, asked.dense), _dense(asked.dense)
        python = interpreter(asked.engines)
        wanted = None if python is None else reference(model.task, model.pooling, model.words.differs)
    except Exception as error:
        return tuple(_failed(kind, error) for kind in asked.options.gguf)
    folder = asked.folder / FOLDER
    folder.mkdir(exist_ok=True)
    rows = tuple(_row(model, dense, folder, kind, python=python, wanted=wanted) for kind in asked.options.gguf)
    if not any(folder.iterdir()):
        folder.rmdir()
    return rows


def _failed(kind: str, error: Exception) -> ExportReport:
    """Return the row of what did not work out; what was not foreseen is in the log."""
    if isinstance(error, NotHeld):
        reason = str(error)
    else:
        raise_if_exhausted(error, "a GGUF file was made")
        _log.error("the GGUF file %s was not made", kind, exc_info=error)
        reason = f"an error that nobody foresaw ended the export ({type(error).__name__}); the worker's log has it"
    return ExportReport(format="gguf", kind=kind, status="failed", reason=reason)


def _row(
    model: _Model, dense: Laid | None, folder: Path, kind: str, *, python: Path | None, wanted: Reference | None
) -> ExportReport:
    """Write one file and prove it. What does not work out is deleted."""
    path = folder / f"model-{kind}.gguf"
    try:
        types = _written(model, path, kind, python)
        if python is None or wanted is None:
            difference, said = None, f"llama.cpp is not installed here, so nothing has loaded the file. {HOW_TO_GET_IT}"
        else:
            proof = prove(python, path, kind, wanted)
            difference, said = proof.difference, proof.note
    except Exception as error:
        path.unlink(missing_ok=True)
        return _failed(kind, error)
    size = path.stat().st_size
    return ExportReport(
        format="gguf",
        kind=kind,
        status="ok",
        path=f"{FOLDER}/{path.name}",
        bytes=size,
        dense_bytes=_dense_bytes(size, model.laid, dense, kind),
        max_difference=difference,
        notes=(f"architecture {model.laid.arch}", said, *model.words.notes, *model.notes, *_other_types(types, kind)),
    )


def _dense_bytes(size: int, laid: Laid, dense: Laid | None, kind: str) -> int | None:
    """Return the size that the dense model's file would have, by its shapes; None where llama.cpp chooses the types."""
    wanted = TYPES.get(kind)
    return (
        None if wanted is None or dense is None else size - data_bytes(laid.placed, wanted) + data_bytes(dense.placed, wanted)
    )


def _written(model: _Model, path: Path, kind: str, python: Path | None) -> Counter[tuple[str, str]]:
    """Write a file and read it back.

    Returns:
        The number of matrices by name and type.

    Raises:
        NotHeld: It can't be written, or does not have the values.
    """
    arch, placed = model.laid.arch, model.laid.placed
    write = partial(write_file, arch=arch, values=model.values, placed=placed, state=model.state)
    number = _QUANTIZER.get(kind)
    if number is None:
        write(path, wanted=TYPES[kind])
    else:
        if python is None:
            raise NotHeld(f"{kind} is made by llama.cpp's own quantizer, and llama.cpp is not installed here. {HOW_TO_GET_IT}")
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".source-") as scratch:
            source = Path(scratch) / "model.gguf"
            write(source, wanted=TYPES[_STORED[model.task.stored_dtype]])
            quantize(python, source, path, int(number))
    return compare(path, arch, placed, model.state)


def _other_types(types: Counter[tuple[str, str]], kind: str) -> tuple[str, ...]:
    """Say which matrices are of another type than the file's name says."""
    usual = ("Q4_K", "Q5_K", "Q6_K") if kind in _QUANTIZER else (kind,)
    others = sorted((name, own, count) for (name, own), count in types.items() if own not in usual)
    if not others:
        return ()
    listed = ", ".join(f"{name} {own} ({count})" if count > 1 else f"{name} {own}" for name, own, count in others)
    block = 256 if kind in _QUANTIZER else 32
    finer = " or which it keeps finer" if kind in _QUANTIZER or kind == "Q4_0" else ""
    return (f"matrices of another type, whose rows are no multiple of {block}{finer}: {listed}",)


def _model(task: TaskModel, dense: TaskModel) -> _Model:
    """Describe a checkpoint.

    Raises:
        NotHeld: llama.cpp can't hold it.
    """
    config = task.model.config.to_dict()
    reason = reason_against(config)
    if reason is not None:
        raise NotHeld(reason)
    if family_name(config) == "bert":
        return _encoder(task, dense)
    if task.task_type != "text-generation":
        raise NotHeld(f"files of decoders are written for text-generation, and this model is for {task.task_type}")
    size = _head_size(dense.model)
    rotary = rotary_of(task.model, size)
    laid = laid_out(task.model, size, rotary)
    words = _vocabulary(task, laid)
    values = decoder_parameters(config, laid, rotary) | dict(words.values)
    near = window(config)
    seen = f"the model attends to the last {near} tokens, and llama.cpp to all: the file's context ends there"
    return _Model(task, laid, state_of(task.model, rotary), values, None, words, (seen,) if near else ())


def _encoder(task: TaskModel, dense: TaskModel) -> _Model:
    if task.embedder is None and task.task_type not in _CLASSIFIES:
        raise NotHeld(
            f"llama.cpp has no output for {task.task_type}: files of encoders are for embeddings and classes of texts"
        )
    laid = laid_out(task.model, _head_size(dense.model), None)
    recipe = None if task.embedder is None else task.embedder.recipe
    words = _vocabulary(task, laid)
    values = encoder_parameters(task.model.config.to_dict(), laid, recipe) | dict(words.values)
    pooling = PoolingType.RANK if recipe is None else pooling_of(recipe)
    pairs = "llama.cpp gives all tokens the first token type: pairs of texts get other results"
    notes = (
        [pairs] if recipe is None or not recipe.prompt else [pairs, f"put the prompt {recipe.prompt!r} before texts yourself"]
    )
    return _Model(task, laid, state_of(task.model, None), values, pooling, words, tuple(notes))


def _vocabulary(task: TaskModel, laid: Laid) -> Vocabulary:
    rows = next(own.shape[0] for own in laid.placed if own.name == "token_embd.weight")
    ends = getattr(getattr(task.model, "generation_config", None), "eos_token_id", None)
    return vocabulary(task.tokenizer, rows, ends if isinstance(ends, list) else [] if ends is None else [int(ends)])


def _dense(task: TaskModel) -> Laid | None:
    try:
        size = _head_size(task.model)
        return laid_out(
            task.model, size, None if family_name(task.model.config.to_dict()) == "bert" else rotary_of(task.model, size)
        )
    except NotHeld:
        return None


def _head_size(model: PreTrainedModel) -> int:
    config: dict[str, Any] = model.config.to_dict()
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
