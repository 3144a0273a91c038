"""The checkpoint as one ONNX graph, for runtimes without PyTorch."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pruning_core.models import TaskModel

# Where the Hub and sentence-transformers look for it.
ONNX_PATH = "onnx/model.onnx"


class ExportFailed(Exception):
    """The graph could not be written; the message is the exporter's own first sentence."""


class _Graph(nn.Module):
    """The model with tensors in and one tensor out."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self._model, self._output = model.model, output_name(model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Give the logits, or the tokens' last states."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return getattr(self._model(input_ids=input_ids, attention_mask=attention_mask, **types), self._output)


def output_name(model: TaskModel) -> str:
    """Name the graph's output as transformers names the model's."""
    return "last_hidden_state" if model.task_type == "feature-extraction" else "logits"


def export_onnx(model: TaskModel, folder: Path) -> None:
    """Write the graph, with free batch size and length, in float32.

    Args:
        model: The checkpoint as loaded back from its files.
        folder: The checkpoint's folder.

    Raises:
        ExportFailed: The exporter cannot express the model, or is not installed.
    """
    sample = model.tokenizer(["one two three", "four"], padding=True, return_tensors="pt")
    names = [name for name in model.tokenizer.model_input_names if name in sample]
    inputs: Mapping[str, Tensor] = {name: sample[name].to(model.device) for name in names}
    free = {name: {0: "batch", 1: "sequence"} for name in names}
    path = folder / ONNX_PATH
    path.parent.mkdir(exist_ok=True)
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the exporter lists every operator library that it does without
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Graph(model).eval(),
                (),
                kwargs=dict(inputs),
                dynamo=True,
                input_names=names,
                output_names=[output_name(model)],
                dynamic_shapes=free,
                verbose=False,
            )
            assert program is not None, "the exporter gives a program"
            program.save(path, external_data=False)
    except Exception as error:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
        raise ExportFailed(f"{type(error).__name__}: {_sentence(error)}") from error
    finally:
        logging.disable(previous)


def _sentence(error: Exception) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return next((line.strip() for line in plain.splitlines() if line.strip()), "no reason given")[:200]
