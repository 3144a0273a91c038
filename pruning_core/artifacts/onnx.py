"""The checkpoint as one ONNX graph, for runtimes without PyTorch."""

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

from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel

# Where the Hub and sentence-transformers look for it.
ONNX_PATH = "onnx/model.onnx"


class ExportFailed(Exception):
    """The graph could not be written; the message is the exporter's own first sentence."""


class _Graph(nn.Module):
    """The model with tensors in, and out the ones that the task stands on."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self._model, self._outputs = model.model, model.family.reads

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor, ...]:
        """Give the logits, or the tokens' last states."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        result = self._model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return tuple(getattr(result, name) for name in self._outputs)


class _ImageGraph(_Graph):
    """The same for images."""

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give the logits."""
        result = self._model(pixel_values=pixel_values)
        return tuple(getattr(result, name) for name in self._outputs)


@contextmanager
def _without_cache(model: TaskModel) -> Generator[None]:
    """Have a decoder give its outputs alone, not the keys and values for the next step."""
    config = cast("Any", model.model.config)
    before = getattr(config, "use_cache", None)
    config.use_cache = False
    try:
        yield
    finally:
        if before is None:
            del config.use_cache
        else:
            config.use_cache = before


def export_onnx(model: TaskModel, folder: Path) -> None:
    """Write the graph, with free batch size and length, in float32.

    Args:
        model: The checkpoint as loaded back from its files.
        folder: The checkpoint's folder.

    Raises:
        ExportFailed: The exporter cannot express the model, or is not installed.
        OutOfMemory: It ran out of memory.
        StorageFull: The graph does not fit onto the disk.
    """
    family = model.family
    if not KINDS[model.task_type].one_graph:
        raise ExportFailed(f"{model.task_type} models need a graph for each half and a cache between them")
    inputs = family.probe_inputs(model, family.example, model.longest(8)).to(model.device).inputs
    names = list(inputs)
    free = {name: {0: "batch"} if name == "pixel_values" else {0: "batch", 1: "sequence"} for name in names}
    path = folder / ONNX_PATH
    path.parent.mkdir(exist_ok=True)
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter lists every operator library that it does without
    try:
        with warnings.catch_warnings(), torch.no_grad(), _without_cache(model):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                (_ImageGraph if "pixel_values" in inputs else _Graph)(model).eval(),
                (),
                kwargs=inputs,
                dynamo=True,
                input_names=names,
                output_names=list(family.reads),
                dynamic_shapes=free,
                verbose=False,
            )
            assert program is not None, "the exporter gives a program"
            program.save(path, external_data=False)
    except Exception as error:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
        raise_if_exhausted(error, "the ONNX graph was made")
        raise ExportFailed(f"{type(error).__name__}: {_sentence(error)}") from error
    finally:
        logging.disable(previous)


def _sentence(error: Exception) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return next((line.strip() for line in plain.splitlines() if line.strip()), "no reason given")[:200]
