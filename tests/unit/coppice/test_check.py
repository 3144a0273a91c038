"""``coppice check``, and tasks of one's own on the command line: every type, by its columns."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from coppice.cli import app
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS
from tests import tasks
from tests.families import ARCHITECTURES
from tests.matrix import SHOWN_ON

# One of each kind of columns on every run.
QUICK = {"text-classification", "question-answering", "translation", "image-classification"}


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"TERM": "dumb", "COLUMNS": "200"})


def task_words(task):
    """Say a task by options."""
    columns = task["columns"]
    said = [word for name in columns.get("text", ()) for word in ("--text", name)]
    for name in ("image", "label"):
        said += [f"--{name}", columns[name]] if columns.get(name) else []
    return ["--task", task["type"], "--data", task["dataset"], *said]


@pytest.mark.parametrize("task_type", [own if own in QUICK else pytest.param(own, marks=pytest.mark.matrix) for own in KINDS])
def test_every_type_of_task_is_said_by_options(task_type, tmp_path):
    model = ARCHITECTURES[SHOWN_ON[task_type]].write_for(task_type, tmp_path / "model")
    task = tasks.task_of(task_type, tasks.write_task_data(tmp_path / "data", task_type, rows=4))
    found = call("check", "--model", model, *task_words(task), "--macs-keep", "0.5", "--json")
    assert found.exit_code == 0, found.output
    plan = json.loads(found.stdout)
    assert TaskSpec.model_validate(plan["spec"]["task"]) == TaskSpec.model_validate(task)
    assert plan["predicted"]["parameters"]["pruned"] < plan["predicted"]["parameters"]["dense"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--task", "fill-mask", "--text", "text"], "--task: model type 't5' cannot do fill-mask: there is no such head"),
        (["--layout", "stock"], "--layout: the stock layout needs a model whose layers are all alike"),
        (["--format", "onnx"], "--format: summarization needs one graph for the encoder"),
        (["--weights", "some"], "--weights must be 'auto', 'resident' or 'paged'"),
        (["--weights", "paged", "--latency-keep", "0.5"], "a target of latency is measured on the whole model"),
        (["--label", "written"], "no column 'written'; it has"),
        (["--metric", "bleu"], "metric of a summarization task must be one of rougeL"),
        (["--text", "text", "--text", "other"], "a summarization task reads 1 (a text) column, got 2"),
        (["--task", "glue/sst2"], "--text, --label: only where --task is a type: text-classification"),
    ],
)
def test_what_would_be_refused_is_said_before_anything_is_submitted(changes, says, tmp_path):
    model = ARCHITECTURES["t5"].write_for("summarization", tmp_path / "model")
    data = tasks.write_task_data(tmp_path / "data", "summarization", rows=4)
    given = {"--model": model, "--data": data, "--task": "summarization", "--text": "text", "--label": "other"}
    kept = [word for name, value in given.items() if name not in changes for word in (name, value)]
    found = call("check", *kept, "--macs-keep", "0.5", *changes)
    assert found.exit_code == 2
    assert says in " ".join(found.stderr.split())


def test_options_of_a_task_change_what_a_spec_file_says(tmp_path):
    data = tasks.write_task_data(tmp_path / "data", "translation", rows=4)
    model = ARCHITECTURES["t5"].write_for("translation", tmp_path / "model")
    spec = {"model": str(model), "task": tasks.task_of("translation", data), "sparsity": 0.3}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    found = call("check", "--spec", tmp_path / "spec.json", "--metric", "loss", "--prefix", "translate: ", "--json")
    task = json.loads(found.stdout)["spec"]["task"]
    assert (task["metric"], task["prefix"], task["columns"]["label"]) == ("loss", "translate: ", "other")


def test_checking_loads_no_torch(tiny_bert, tiny_sst2):
    import subprocess

    line = "import sys; from coppice.cli import app; app(standalone_mode=False); sys.exit('torch' in sys.modules)"
    words = ["check", "--model", tiny_bert, "--task", "glue/sst2", "--data", tiny_sst2, "--macs-keep", "0.5"]
    done = subprocess.run([sys.executable, "-c", line, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "it would be accepted: about" in done.stdout
