"""The tasks of the guide, run as a reader would: a spec file, and the command line."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from coppice.cli import app
from pruning_core.artifacts.loading import snippets
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import KINDS
from tests import tasks
from tests.guides import GUIDES, block

# Those with a block of their own; the others are the first guide's.
TYPES = [name for name in KINDS if name not in ("text-classification", "regression", "feature-extraction")]


SLOW = {"multi-label-classification", "sentence-similarity", "fill-mask", "summarization", "translation"}


@pytest.mark.parametrize("task_type", [pytest.param(own, marks=pytest.mark.matrix) if own in SLOW else own for own in TYPES])
@pytest.mark.long
def test_every_task_of_the_guide_runs(task_type, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks.write_task_model(tmp_path / "model", task_type)
    tasks.write_task_data(tmp_path / "data", task_type, rows=40)
    task = json.loads(block("tasks.md", "json", task_type))
    spec = json.loads(block("tasks.md", "json", "spec")) | {"task": task}
    spec |= {"calibration": {"samples": 32, "max_length": 32}, "latency": {"batch": 2, "length": 16, "repeats": 3}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = CliRunner().invoke(app, ["run", "--spec", "spec.json", "--out", "bundle"], env=dict(os.environ))
    assert done.exit_code == 0, done.output
    report = Report.model_validate_json((tmp_path / "bundle" / "report.json").read_text())
    assert report.quality.metric == task["metric"]
    monkeypatch.chdir(tmp_path / "bundle")
    names: dict[str, object] = {}
    for snippet in snippets(PruneSpec.model_validate(spec), report):
        if "sentence_transformers" not in snippet.code:
            exec(snippet.code, names)
    assert names["model"].num_parameters() > 0


def test_the_guide_lists_every_type_with_its_metrics():
    table = (GUIDES / "tasks.md").read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
        metrics = row.split("|")[4]
        assert [f"`{metric}`" in metrics for metric in kind.metrics] == [True] * len(kind.metrics)
