"""Export of a checkpoint as one ONNX graph, for runtimes without PyTorch."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pruning_core.artifacts.onnx_graph import plain_sums_, store_
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel

# The path at which the Hub and sentence-transformers look for the graph.
ONNX_PATH = "onnx/model.onnx"


class ExportFailed(Exception):
    """The graph could not be written; the message has the first line of the exporter's own."""


class _Graph(nn.Module):
    """The model as a function of tensors, which returns the outputs that the task reads."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self._model, self._outputs = model.model, model.family.reads

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the logits, or the last hidden states of the tokens."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        result = self._model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return tuple(getattr(result, name) for name in self._outputs)


class _ImageGraph(_Graph):
    """The model as a function of pixels."""

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the logits."""
        result = self._model(pixel_values=pixel_values)
        return tuple(getattr(result, name) for name in self._outputs)


@contextmanager
def as_graph(model: TaskModel) -> Generator[nn.Module]:
    """Give the model as a function of tensors that exporters can express.

    A decoder returns its outputs alone, without the keys and values for the next step. Attention is written as products and a
    softmax: what exporters make of torch's own kernel looks for rows without any real token, which costs a tenth of the time.
    """
    config, inner = cast("Any", model.model.config), cast("Any", model.model)
    before = getattr(config, "use_cache", None)
    attention = getattr(config, "_attn_implementation", None)
    config.use_cache = False
    if attention == "sdpa":
        inner.set_attn_implementation("eager")
    reads_images = KINDS[model.task_type].reads == "image"
    try:
        yield (_ImageGraph if reads_images else _Graph)(model).eval()
    finally:
        if attention == "sdpa":
            inner.set_attn_implementation(attention)
        if before is None:
            del config.use_cache
        else:
            config.use_cache = before


def export_onnx(model: TaskModel, folder: Path) -> None:
    """Write a graph that computes in float32, with its weights in the stored type, and free batch size and sequence length.

    Args:
        model: The checkpoint, loaded back from its files.
        folder: The checkpoint's folder.

    Raises:
        ExportFailed: The exporter cannot express the model, or is not installed.
        OutOfMemory: The exporter ran out of memory.
        StorageFull: The graph does not fit onto the disk.
    """
    family = model.family
    if not KINDS[model.task_type].one_graph:
        raise ExportFailed(
            f"{model.task_type} models need one graph for the encoder, one for the decoder and a cache between them"
        )
    inputs = family.probe_inputs(model, family.example, model.longest(8)).to(model.device).inputs
    names = list(inputs)
    free = {name: {0: "batch"} if name == "pixel_values" else {0: "batch", 1: "sequence"} for name in names}
    path = folder / ONNX_PATH
    path.parent.mkdir(exist_ok=True)
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter warns of every operator library that is not installed
    try:
        with warnings.catch_warnings(), torch.no_grad(), as_graph(model) as function:
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                function,
                (),
                kwargs=inputs,
                dynamo=True,
                input_names=names,
                output_names=list(family.reads),
                dynamic_shapes=free,
                verbose=False,
            )
            assert program is not None, "the exporter gives a program"
            plain_sums_(program.model.graph)
            store_(program.model.graph, model.stored_dtype, exact=True)
            program.save(path, external_data=False)
    except Exception as error:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
        raise_if_exhausted(error, "the ONNX graph was made")
        raise ExportFailed(f"{type(error).__name__}: {sentence(error)}") from error
    finally:
        logging.disable(previous)


def sentence(error: Exception) -> str:
    """Return the first line of an exporter's error, without its colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return next((line.strip() for line in plain.splitlines() if line.strip()), "no reason given")[:200]
