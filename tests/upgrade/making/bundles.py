"""Bundles by ``coppice run``, what they answer when they are loaded as users load them, and which jobs take them as models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from coppice import Client
from coppice.errors import ApiError
from tests.upgrade.loading import answers_of, difference
from tests.upgrade.making.models import write_data, write_model
from tests.upgrade.making.specs import BUNDLES, SMALL, TAKERS, task_of

_LOADS_AS = {"bert": "AutoModelForSequenceClassification", "llama": "AutoModelForCausalLM", "t5": "AutoModelForSeq2SeqLM"}
# Two texts; the second is padded on the right.
_IDS = [[2, 6, 9, 30, 12, 17, 3], [2, 31, 8, 5, 3, 0, 0]]
_MASK = [[1] * 7, [1] * 5 + [0] * 2]
_SAME = 1e-5  # what the two ways to load may differ by
_CLEAR = 1e-3  # by how much logits of the token that is written must be above all others


def make_bundles(folder: Path, inputs: Path) -> list[dict[str, Any]]:
    """Make every bundle, and give the checkpoints in them, each with its spec, its inputs and its answer.

    Args:
        folder: Where the bundles go.
        inputs: Where the dense models and the data go: ``bert``, ``llama``, ``t5`` and ``data``.
    """
    data = write_data(inputs / "data")
    specs: dict[str, dict[str, Any]] = {}
    for name, (kind, options) in BUNDLES.items():
        model = inputs / kind if (inputs / kind).exists() else write_model(inputs / kind, kind)
        specs[name] = {"model": str(model), "task": task_of(kind, str(data)), **SMALL, **options}
        (inputs / "spec.json").write_text(json.dumps(specs[name]))
        command = [sys.executable, "-m", "coppice.cli", "run", "--spec", str(inputs / "spec.json"), "--device", "cpu"]
        subprocess.run([*command, "--threads", "1", "--out", str(folder / name)], check=True)
    checkpoints: list[dict[str, Any]] = []
    for config in sorted(folder.glob("**/config.json")):
        bundle = config.relative_to(folder).parts[0]
        path = str(config.parent.relative_to(folder))
        checkpoints.append({"path": path, "spec": specs[bundle], **_asked_of(BUNDLES[bundle][0])})
    answers = [answers_of(folder, checkpoints, how, inputs) for how in ("plug-in", "remote-code")]
    for checkpoint, one, other in zip(checkpoints, *answers, strict=True):
        assert one["told"] == other["told"] == {}, checkpoint["path"]
        assert one["weights"] == other["weights"], checkpoint["path"]
        if one["written"] is not None:
            assert one["written"]["tokens"] == other["written"]["tokens"], checkpoint["path"]
            assert one["written"]["margin"] > _CLEAR, f"{checkpoint['path']}: another CPU may write something else"
        assert difference(one["logits"], other["logits"]) < _SAME, checkpoint["path"]
        checkpoint["answer"] = one
    return checkpoints


def taken(client: Client, folder: Path, checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the requests that the service would take with a checkpoint of a folder as the model."""
    model = {"model": str(folder / checkpoint["path"]), "task": checkpoint["spec"]["task"], **SMALL}
    found: list[dict[str, Any]] = []
    for options in TAKERS:
        try:
            client.plan(model | options)
        except ApiError as error:
            assert error.status == 422, error  # noqa: PT017 - a refusal is an answer, all else is none
        else:
            found.append(model | options)
    return found


def _asked_of(kind: str) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": _IDS, "attention_mask": _MASK}
    if kind == "t5":
        inputs["decoder_input_ids"] = [[0, 7, 9], [0, 8, 30]]
    if kind == "llama":  # decoders go on from the end, so that padding stands in front
        inputs = {name: [row[::-1] for row in rows] for name, rows in inputs.items()}
    return {"loads_as": _LOADS_AS[kind], "inputs": inputs, "generates": kind != "bert"}
