"""The trained tier of ``admm-pattern`` through the whole pipeline on tiny models."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pruning_core.errors import Diverged
from pruning_core.report.progress import STAGES, Progress
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from tests import tiny

TRAINING = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 32, "judgements": 2}


def spec_of(model, data, pattern="2:4", task="glue/sst2", **training):
    method = {"name": "admm-pattern", "pattern": pattern, "tier": "trained", "training": TRAINING | training}
    return tiny.tiny_spec(model, data, method=method, target=None, task=task)


@pytest.fixture(scope="module")
def trained(tiny_bert, tiny_sst2, tmp_path_factory):
    """A finished bundle, its report and its progress."""
    folder, seen = tmp_path_factory.mktemp("trained"), []
    spec = spec_of(tiny_bert, tiny_sst2)
    report = run(spec, folder / "out", device="cpu", scratch=folder / "scratch", on_progress=seen.append)
    return folder, spec, report, seen


@pytest.mark.long
def test_every_written_block_satisfies_the_pattern(trained):
    folder, _spec, report, _seen = trained
    assert report.pattern is not None
    assert (report.pattern.violations, report.layout) == (0, "stock")
    written = load_file(folder / "out" / "model.safetensors")
    for matrix in report.pattern.matrices:
        blocks = written[f"{matrix.name}.weight"].unflatten(1, (-1, 4))
        assert bool(((blocks != 0).sum(-1) <= 2).all())


def test_the_report_tells_how_it_was_trained(trained):
    training = trained[2].training
    assert training is not None
    assert (training.ending, training.steps, training.resumed_from) == ("finished", training.planned_steps, None)
    assert [phase.phase for phase in training.phases] == ["admm", "fixed"]
    assert sum(phase.steps for phase in training.phases) == training.steps
    assert training.held_out_best < training.held_out_start
    assert {"rho", "primal", "dual"} <= training.points[1].measures.keys()
    assert trained[2].seconds.by_stage["train"] > 0


def test_progress_is_told_at_every_step_and_only_grows(trained):
    _folder, _spec, report, seen = trained
    steps = [progress.step for progress in seen if progress.stage == "train"]
    assert steps[:3] == [0, 1, 2]
    assert steps[-1] == report.training.steps
    fractions = [progress.fraction for progress in seen]
    assert fractions == pytest.approx(sorted(fractions))
    assert Progress(stage="train", step=1, total=1, trains=True).fraction > 0.8
    assert [Progress(stage=stage, step=1, total=1, trains=True).fraction for stage in STAGES][-1] == pytest.approx(1)


@pytest.mark.parametrize("interrupted_at", [pytest.param(2, marks=pytest.mark.matrix), 11])
@pytest.mark.long
def test_a_second_attempt_goes_on_and_gives_the_same_bytes(trained, tmp_path, monkeypatch, interrupted_at):
    folder, spec, reference, _seen = trained
    monkeypatch.setattr("pruning_core.training.checkpoints.EVERY_S", 0.0)

    def interrupt(progress):
        if progress.stage == "train" and progress.step == interrupted_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "out", device="cpu", scratch=tmp_path / "scratch", on_progress=interrupt)
    assert not (tmp_path / "out").exists()
    report = run(spec, tmp_path / "out", device="cpu", scratch=tmp_path / "scratch")
    assert report.training.resumed_from == interrupted_at
    assert report.training.points == reference.training.points
    first, second = (path / "out" / "model.safetensors" for path in (folder, tmp_path))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("training", "phases"),
    [
        ({"finish": "sr-ste", "admm": 0.3}, ["admm", "sr-ste"]),
        pytest.param({"admm": 0, "start": "dense"}, ["fixed"], marks=pytest.mark.matrix),
        pytest.param({"admm": 0, "finish": "sr-ste", "start": "dense"}, ["sr-ste"], marks=pytest.mark.matrix),
        ({"admm": 1, "finish": "none", "penalty": "coupled"}, ["admm"]),
    ],
)
@pytest.mark.long
def test_every_order_of_phases_ends_in_the_pattern(training, phases, tiny_bert, tiny_sst2, tmp_path):
    report = run(spec_of(tiny_bert, tiny_sst2, "4x4:8", **training), tmp_path / "out", device="cpu")
    assert report.pattern.violations == 0
    assert [phase.phase for phase in report.training.phases] == phases


@pytest.mark.parametrize(("finish", "refit"), [("fixed", True), ("sr-ste", True), ("fixed", False)])
@pytest.mark.long
def test_from_dense_weights_training_chooses_and_values_are_refitted(finish, refit, tiny_bert, tiny_sst2, tmp_path):
    report = run(spec_of(tiny_bert, tiny_sst2, start="dense", finish=finish, refit=refit), tmp_path / "out", device="cpu")
    assert report.pattern.violations == 0
    assert [phase.phase for phase in report.training.phases] == ["admm", finish]
    assert report.training.steps == report.training.planned_steps == sum(phase.steps for phase in report.training.phases)
    assert [point.step for point in report.training.points] == sorted(point.step for point in report.training.points)
    selections = {matrix.status for matrix in report.pattern.matrices}
    assert all(matrix.iterations == 0 for matrix in report.pattern.matrices) == refit  # no one-shot ADMM where training chooses
    assert selections
    assert any(matrix.refit_steps for matrix in report.pattern.matrices)


@pytest.mark.long
def test_training_chooses_where_nothing_is_refitted_too(tiny_bert, tiny_sst2, tmp_path):
    spec = spec_of(tiny_bert, tiny_sst2, start="dense").but(recovery=RecoverySpec(kind="none"))
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.pattern.violations == 0
    assert [phase.phase for phase in report.training.phases] == ["admm", "fixed"]
    assert not any(matrix.refit_steps for matrix in report.pattern.matrices)


@pytest.mark.long
def test_divergence_is_typed_and_leaves_the_best_weights_before_it(tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", num_labels=1)
    columns = {"text": ["sentence"], "label": "label"}
    task = {"type": "regression", "dataset": str(tiny_sst2), "columns": columns, "metric": "spearman"}
    method = spec_of(model, tiny_sst2, learning_rate=1, epochs=12, hidden=0, distillation=0).method.model_dump()
    spec = tiny.tiny_spec(model, tiny_sst2, task=task, target=None, method=method)
    with pytest.raises(Diverged, match=r"Lower method\.training\.learning_rate") as caught:
        run(spec, tmp_path / "out", device="cpu")
    report = caught.value.report
    assert report.training.ending == "diverged"
    assert report.pattern.violations == 0
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in written.values())
    assert json.loads((tmp_path / "out" / "report.json").read_text())["training"]["reason"]


@pytest.mark.long
def test_distillation_alone_trains_without_labels(tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="embedding")
    data = tiny.write_jsonl(tmp_path / "data")
    task = {"type": "feature-extraction", "dataset": str(data), "columns": {"text": ["text"]}, "metric": "cosine"}
    # From the dense weights, so that there is something to learn: the one-shot tier leaves next to nothing on this model.
    method = spec_of(model, data, distillation=1, start="dense").method.model_dump()
    spec = tiny.tiny_spec(model, data, task=task, target=None, method=method)
    report = run(spec, tmp_path / "out", device="cpu")
    assert report.training.steps == report.training.planned_steps
    assert report.training.held_out_best < report.training.held_out_start
    assert report.pattern.violations == 0


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"tier": "two-shot"}, "Input should be 'one-shot' or 'trained'"),
        ({"tier": "trained", "training": {"epochs": 0}}, "greater than or equal to 1"),
        ({"tier": "trained", "training": {"epochs": 1000}}, "less than or equal to 100"),
        ({"tier": "trained", "training": {"batch_size": 100_000}}, "less than or equal to 4096"),
        ({"tier": "trained", "training": {"learning_rate": 5}}, "less than or equal to 1"),
        ({"tier": "trained", "training": {"rho_first": 2}}, "the penalty grows"),
        ({"tier": "trained", "training": {"finish": "none"}}, "with finish none all steps are ADMM's"),
        ({"tier": "trained", "training": {"lambda": 1}}, "Extra inputs are not permitted"),
        ({"tier": "trained", "selection": "wanda"}, "needs selection admm"),
        ({"training": {"epochs": 3}}, "set method.tier to trained"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_submit(method, says):
    fields = {"model": "org/name", "task": "glue/sst2", "method": {"name": "admm-pattern"} | method}
    with pytest.raises(ValidationError) as caught:
        PruneSpec.model_validate(fields)
    assert any(says in error["msg"] for error in caught.value.errors()), caught.value.errors()


def test_labels_that_are_not_there_are_refused_at_submit():
    task = {"type": "feature-extraction", "dataset": "/data", "columns": {"text": ["text"]}, "metric": "cosine"}
    method = {"name": "admm-pattern", "tier": "trained"}
    with pytest.raises(ValidationError, match=r"needs labels, and this task has none: set method\.training\.distillation to 1"):
        PruneSpec.model_validate({"model": "org/name", "task": task, "method": method})


def test_the_tier_survives_json():
    method = {"name": "admm-pattern", "tier": "trained", "training": {"epochs": 5}}
    spec = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "method": method})
    assert PruneSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_page_and_the_card_tell_of_the_training(trained):
    folder = trained[0]
    page, card = ((folder / "out" / name).read_text() for name in ("report.html", "README.md"))
    assert "then trained for 2 epochs" in page
    assert "then trained for 2 epochs on 228 rows" in card
    assert "no retraining" not in page
    assert "without retraining" not in card
    assert 'aria-label="Loss over the steps of training; on held-out rows: step 0 ' in page
    assert 'aria-label="Over the steps of training: rho, primal, dual"' in page


@pytest.mark.slow
@pytest.mark.long
def test_the_command_line_trains(tiny_bert, tiny_sst2, tmp_path):
    spec = {"calibration": {"samples": 32, "max_length": 32}, "latency": {"batch": 2, "length": 16, "repeats": 3}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    words = ["--spec", str(tmp_path / "spec.json"), "--model", str(tiny_bert), "--data", str(tiny_sst2), "--task", "glue/sst2"]
    words += ["--method", "admm-pattern", "--pattern", "2:4", "--tier", "trained", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "coppice.cli", "run", *words, "--device", "cpu"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == 0, told.stderr
    assert "loss on held-out rows" in told.stdout
    assert any(line.endswith(" train") for line in told.stderr.splitlines())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["training"]["ending"], report["pattern"]["violations"]) == ("finished", 0)
