"""The time that check tells, beside the time that the job takes: not to the second, but by its order of magnitude."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pruning_core.checks.prediction import predict
from tests import tiny
from tests.unit.core.test_ledger import decoder_spec, write_decoder

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]

# A busy machine of two cores takes several times as long as an ordinary host; before, this job was said to take a fifth of it.
FACTOR = 4


def test_a_job_with_a_ledger_a_set_a_format_and_engines_takes_about_what_was_said(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, data = write_decoder(tmp_path / "model"), tiny.write_jsonl(tmp_path / "data")
    asked = {"engines": ["transformers", "onnxruntime"], "formats": ["safetensors", "onnx"]}
    spec = decoder_spec(model, data, {"items": 64}, artifacts=asked)
    also = ({"name": "again", "split": "train"},)
    spec = spec.model_validate(spec.model_dump() | {"evaluation": spec.evaluation.model_dump() | {"also": also}})
    told = predict(spec)
    assert told is not None
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    command = [
        sys.executable,
        "-m",
        "coppice.cli",
        "run",
        "--spec",
        tmp_path / "spec.json",
        "--out",
        tmp_path / "out",
        "--json",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["status"] for row in report["engines"]] == ["ok", "ok"], report["engines"]
    taken = report["seconds"]["total"]
    assert taken / FACTOR < told.seconds < FACTOR * taken, report["seconds"]
