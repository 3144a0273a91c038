"""Healing on small models, by parts and through the pipeline: it helps, it returns, zeros stay zero, it resumes."""

from __future__ import annotations

import resource
from array import array
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from pruning_core.arch.adapter import adapt, clone
from pruning_core.data.rows import Rows
from pruning_core.errors import DatasetInvalid, StorageFull
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.healing import HealSpec
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.spec.training import TrainingOptions
from pruning_core.tasks.batch import TokenLabelled
from pruning_core.tasks.classification import kl
from pruning_core.tasks.vocabulary import kl_of_tokens
from pruning_core.training.checkpoints import Checkpoints
from pruning_core.training.constraint import Unconstrained
from pruning_core.training.dataset import IN_DOMAIN, OFF_DOMAIN, TrainingSet
from pruning_core.training.healing import HealRecipe, check_enough
from pruning_core.training.judging import Guard
from pruning_core.training.loop import Setting, Trainer
from pruning_core.training.recipe import prunable_weights
from pruning_core.training.schedule import ByBudget
from pruning_core.training.trainable import make_trainable_
from tests import tiny
from tests.exported import write_llama

HEAL = {"kind": "distil", "steps": 12, "learning_rate": 1e-3, "judgements": 4}


def spec_of(model, data, heal=None, **fields):
    given = {"target": {"metric": "macs", "keep": 0.5}, "recovery": {"heal": heal or HEAL}} | fields
    return tiny.tiny_spec(model, data, **given)


# --- the parts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense(tiny_bert):
    return load_task_model(tiny_bert, "text-classification", torch.device("cpu"))


@pytest.fixture(scope="module")
def rows():
    return tiny.rows_to_learn()


class Lab:
    """A damaged student, ready to be healed."""

    def __init__(self, dense, rows, schedule, learning_rate=2e-3, keeps_zeros=False, damage=0.5, guard=None, **setting):
        heal = HealSpec(kind="distil", learning_rate=learning_rate, batch_size=16)
        options = heal.training("text-classification")
        self.student = dense.with_model(clone(dense.model))
        training_set = TrainingSet.draw(dense, rows, options, max_length=32, seed=0, micro_tokens=256)
        training_set = replace(training_set, train=training_set.train[24:], held_out=training_set.train[:24])
        self.parameters = make_trainable_(self.student, training_set.batches(training_set.held_out)[0])
        with torch.no_grad():
            for path, linear in adapt(self.student.model).linears.items():
                drawn = torch.rand(linear.weight.shape, generator=torch.Generator().manual_seed(len(path)))
                linear.weight.mul_(drawn > damage)
        self.weights = prunable_weights(self.student.model)
        self.recipe, self.dense = HealRecipe(keeps_zeros), dense
        self.setting = Setting(training_set, options, torch.float32, schedule=schedule, guard=guard or Guard(), **setting)

    def heal(self):
        constraint = self.recipe.constraint(self.weights)
        return Trainer(self.student, self.dense, self.parameters, constraint, self.setting).run()

    def state(self):
        return {name: tensor.clone() for name, tensor in self.student.model.state_dict().items()}


def given(steps=12, judgements=4):
    return ByBudget(None, steps, judgements, 0.1)


def test_it_comes_nearer_to_the_dense_model(dense, rows):
    lab = Lab(dense, rows, given(40))
    report = lab.heal()
    assert (report.ending, report.steps, report.planned_steps) == ("finished", 40, 40)
    assert report.held_out_best < 0.7 * report.held_out_start
    assert [phase.phase for phase in report.phases] == ["heal"]
    assert report.points[0].measures == {IN_DOMAIN: pytest.approx(report.held_out_start)}
    assert not any(parameter.requires_grad for parameter in lab.student.model.parameters())


def test_zeros_stay_zero(dense, rows):
    lab = Lab(dense, rows, given(20), keeps_zeros=True)
    zeros = {path: weight.detach() == 0 for path, weight in lab.weights.items()}
    report = lab.heal()
    assert report.best_step > 0
    assert all(bool((weight[zeros[path]] == 0).all()) for path, weight in lab.weights.items())


@pytest.mark.parametrize("learning_rate", [0.5, 1.0])
def test_an_absurd_learning_rate_returns_to_the_start(dense, rows, learning_rate):
    lab = Lab(dense, rows, given(40, judgements=8), learning_rate=learning_rate, damage=0.1)
    before = lab.state()
    report = lab.heal()
    assert report.best_step == 0
    assert report.held_out_best == report.held_out_start
    assert report.ending in ("early", "diverged")
    assert report.reason
    assert all(torch.equal(tensor, before[name]) for name, tensor in lab.state().items())


def test_a_model_like_the_dense_one_is_left_alone(dense, rows):
    lab = Lab(dense, rows, given(8), damage=-1)
    before = lab.state()
    report = lab.heal()
    assert (report.best_step, report.held_out_start) == (0, pytest.approx(0, abs=1e-9))
    assert all(torch.equal(tensor, before[name]) for name, tensor in lab.state().items())


@pytest.mark.parametrize("keeps_zeros", [False, True])
@pytest.mark.parametrize("stop_at", [1, 5, 6, 11, 12])
def test_a_resumed_healing_gives_the_same_bits(dense, rows, tmp_path, stop_at, keeps_zeros):
    whole = Lab(dense, rows, given(), keeps_zeros=keeps_zeros)
    reference = whole.heal()

    def interrupt(done):
        if done == stop_at:
            raise KeyboardInterrupt

    places = {"checkpoints": Checkpoints(tmp_path, "this one", every_s=0)}
    first = Lab(dense, rows, given(), keeps_zeros=keeps_zeros, on_step=interrupt, **places)
    with pytest.raises(KeyboardInterrupt):
        first.heal()
    second = Lab(dense, rows, given(), keeps_zeros=keeps_zeros, **places)
    report = second.heal()
    assert report.resumed_from == stop_at
    assert report.points == reference.points
    assert all(torch.equal(tensor, whole.state()[name]) for name, tensor in second.state().items())


@contextmanager
def files_of_at_most(size):
    """Let no file grow beyond a size: a full disk, as the kernel tells it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_checkpoint_before(dense, rows, tmp_path):
    checkpoints = Checkpoints(tmp_path, "this one", every_s=0)

    def interrupt(done):
        if done == 4:
            raise KeyboardInterrupt

    first = Lab(dense, rows, given(), checkpoints=checkpoints, on_step=interrupt)
    with pytest.raises(KeyboardInterrupt):
        first.heal()
    size = checkpoints.path.stat().st_size
    with files_of_at_most(size // 2), pytest.raises(StorageFull, match="make room"):
        Lab(dense, rows, given(), checkpoints=checkpoints).heal()
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.path.name]
    assert Lab(dense, rows, given(), checkpoints=checkpoints).heal().resumed_from == 4


class TestBudget:
    """The plan of steps by a budget, on a clock of the test's own."""

    def run(self, budget_s, seconds_of, step_s=1.0, judgement_s=2.0):
        plan = ByBudget(budget_s, None, 10, 0.1)
        spent = judgement_s + step_s
        plan.begin(step_s, judgement_s, spent)
        done, judged, rates = 0, 0, []
        while done < plan.steps:
            rates.append(plan.share(done))
            spent += seconds_of(done)
            done += 1
            plan.took(done, seconds_of(done), spent)
            if plan.judges_after(done):
                judged += 1
                spent += judgement_s
        return plan, done, judged, rates, spent

    def test_it_is_used_and_kept(self):
        plan, done, judged, rates, spent = self.run(200, lambda _step: 1.0)
        assert 0.85 * 200 < spent <= 200
        assert (done, judged) == (plan.planned, 10)
        assert rates[-1] < 0.02

    def test_slower_steps_shorten_it_and_the_rate_still_falls_to_zero(self):
        plan, done, judged, rates, spent = self.run(200, lambda step: 1.0 if step < 40 else 4.0)
        assert done < plan.planned
        assert spent <= 201
        assert judged >= 2
        assert rates[-1] < 0.1
        assert all(later <= earlier for earlier, later in pairwise(rates[30:]))

    def test_faster_ones_change_nothing(self):
        plan, done, *_ = self.run(200, lambda _step: 0.1)
        assert done == plan.planned

    def test_there_may_be_no_room_for_a_step(self, dense, rows):
        lab = Lab(dense, rows, ByBudget(1e-6, None, 10, 0.1))
        before = lab.state()
        report = lab.heal()
        assert (report.steps, report.best_step, report.ending) == (0, 0, "early")
        assert "no room for a step" in report.reason
        assert all(torch.equal(tensor, before[name]) for name, tensor in lab.state().items())

    def test_a_minute_or_less_is_kept(self, dense, rows):
        report = Lab(dense, rows, ByBudget(1.0, None, 10, 0.1)).heal()
        assert report.steps > 0
        assert sum(phase.seconds for phase in report.phases) < 1.5

    def test_the_plan_survives_a_checkpoint(self):
        plan = ByBudget(100, None, 10, 0.1)
        plan.begin(1.0, 2.0, 3.0)
        plan.took(5, 3.0, 20.0)
        again = ByBudget(100, None, 10, 0.1)
        again.restore(plan.tensors()["plan"])
        assert again == plan


class TestGuard:
    """What passes."""

    def test_each_kind_counts(self):
        start = {IN_DOMAIN: torch.ones(20), OFF_DOMAIN: torch.ones(20)}
        better, worse = torch.full((20,), 0.5), torch.full((20,), 1.01)
        assert Guard().lets(start, {IN_DOMAIN: better, OFF_DOMAIN: better})
        assert not Guard().lets(start, {IN_DOMAIN: better, OFF_DOMAIN: worse})

    def test_noise_does_not_pass(self):
        draws = torch.Generator().manual_seed(0)
        start = torch.rand(16, generator=draws)
        passed = sum(
            Guard().lets({IN_DOMAIN: start}, {IN_DOMAIN: start + torch.randn(16, generator=draws)}) for _ in range(200)
        )
        assert passed < 15
        assert Guard().lets({IN_DOMAIN: start}, {IN_DOMAIN: start - 0.1})

    def test_what_is_not_finite_does_not_pass(self):
        start = {IN_DOMAIN: torch.ones(20)}
        assert not Guard().lets(start, {IN_DOMAIN: torch.full((20,), float("nan"))})


def test_steps_mix_rows_and_texts_by_their_share(dense):
    blocks = [array("l", [5, 6, 7])] * 200
    encoded = TokenLabelled.unpadded(dense.tokenizer, blocks, blocks)
    kinds = {"train": tuple(range(100)), "held_out": tuple(range(100, 110)), "written_held_out": tuple(range(110, 120))}
    training_set = TrainingSet(encoded, **kinds, seed=0, micro_tokens=64, written=tuple(range(120, 150)), written_share=0.5)
    first, second = ([row for batch in training_set.epoch(epoch, 8) for row in batch] for epoch in (0, 1))
    for epoch in (first, second):
        assert sum(row >= 120 for row in epoch) == 30
        assert sum(row < 100 for row in epoch) == 30
        assert len(set(epoch)) == 60
    assert set(first) != set(second)
    assert training_set.steps(8) == 8
    assert training_set.judged == {IN_DOMAIN: tuple(range(100, 110)), OFF_DOMAIN: tuple(range(110, 120))}


def test_too_few_samples_are_refused():
    check_enough(16, joins_rows=False)
    with pytest.raises(DatasetInvalid, match="healing needs at least 16 blocks of text"):
        check_enough(15, joins_rows=True)


# --- the request -------------------------------------------------------------------------------------------------------


def test_healing_is_off_and_leaves_stored_requests_as_they_were():
    spec = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
    assert not spec.recovery.heal.heals
    assert "heal" not in spec.model_dump()["recovery"]
    healed = PruneSpec.model_validate(
        {"model": "org/name", "task": "glue/sst2", "sparsity": 0.5, "recovery": {"heal": "distil"}}
    )
    assert healed.recovery.heal == HealSpec(kind="distil")
    assert PruneSpec.model_validate_json(healed.model_dump_json()) == healed


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"recovery": {"heal": "distill"}}, "Input should be 'none' or 'distil'"),
        ({"recovery": {"heal": {"minutes": 5}}}, "set kind to distil"),
        ({"recovery": {"heal": {"kind": "distil", "minutes": 0}}}, "greater than 0"),
        ({"recovery": {"heal": {"kind": "distil", "own_text": 0.5}}}, "leave own_text out"),
        ({"recovery": {"heal": "distil"}, "memory": {"weights": "paged"}}, r"healing \(recovery.heal\) trains the whole model"),
        ({"recovery": {"heal": {"kind": "distil", "hidden": 1}}, "artifacts": {"layout": "stock"}}, "leave hidden out"),
        (
            {"recovery": {"heal": "distil"}, "method": {"name": "admm-pattern", "tier": "trained"}, "sparsity": None},
            "trains the pruned model already",
        ),
    ],
)
def test_what_cannot_be_healed_is_refused_at_submit(fields, says):
    given = {"model": "org/name", "task": "glue/sst2", "sparsity": 0.5} | fields
    with pytest.raises(ValidationError, match=says):
        PruneSpec.model_validate({name: value for name, value in given.items() if value is not None})


# --- the pipeline ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A tiny classifier that has learnt its task, and the task's data."""
    folder = tmp_path_factory.mktemp("learnt")
    model = tiny.write_model(folder / "model", "bert")
    data = tiny.write_dataset(folder / "data", rows=800)
    own = load_task_model(model, "text-classification", torch.device("cpu"))
    read = pq.read_table(data / "train.parquet").to_pydict()
    rows = Rows(texts=tuple((text,) for text in read["sentence"]), labels=tuple(float(label) for label in read["label"]))
    options = TrainingOptions(epochs=8, learning_rate=3e-3, batch_size=32, distillation=0, hidden=0)
    training_set = TrainingSet.draw(own, rows, options, max_length=32, seed=0, micro_tokens=1024)
    student = own.with_model(clone(own.model))
    parameters = make_trainable_(student, training_set.batches(training_set.held_out)[0])
    setting = Setting(training_set, options, torch.float32)
    report = Trainer(student, own, parameters, Unconstrained({}), setting).run()
    assert report.held_out_best < 0.4
    student.model.save_pretrained(model)
    return model, data


FLOAT32 = {"samples": 64, "max_length": 32, "batch_tokens": 256, "precision": "float32"}
LONGER = {"kind": "distil", "steps": 120, "learning_rate": 2e-3, "judgements": 4}


@pytest.mark.long
def test_it_brings_back_what_a_model_had_learnt(learnt, tmp_path):
    model, data = learnt
    fields = {"target": {"metric": "macs", "keep": 0.25}, "recovery": {"kind": "none"}, "calibration": FLOAT32}
    plain = run(spec_of(model, data, **fields), tmp_path / "plain", device="cpu")
    healed = run(
        spec_of(model, data, **fields | {"recovery": {"kind": "none", "heal": LONGER}}), tmp_path / "out", device="cpu"
    )
    assert healed.healing.kept
    assert healed.healing.gained > 0.3
    (kind,) = healed.healing.held_out
    assert (kind.start, kind.best) == (healed.healing.held_out_start, healed.healing.held_out_best)
    assert healed.quality.pruned > plain.quality.pruned
    assert healed.quality.details["agreement_with_dense"] > plain.quality.details["agreement_with_dense"]
    assert healed.macs == plain.macs


@pytest.fixture(scope="module")
def healed(tiny_bert, tiny_sst2, tmp_path_factory):
    """A finished bundle, its report and its progress."""
    folder, seen = tmp_path_factory.mktemp("healed"), []
    spec = spec_of(tiny_bert, tiny_sst2)
    report = run(spec, folder / "out", device="cpu", scratch=folder / "scratch", on_progress=seen.append)
    return folder, spec, report, seen


@pytest.mark.long
def test_the_report_tells_what_happened(healed):
    report = healed[2].healing
    assert report is not None
    assert healed[2].training is None
    assert (report.steps, report.planned_steps, report.minutes, report.written) == (12, 12, None, 0)
    (kind,) = report.held_out
    assert (kind.kind, kind.start, kind.best) == (IN_DOMAIN, report.held_out_start, report.held_out_best)
    assert healed[2].seconds.by_stage["train"] > 0
    fractions = [progress.fraction for progress in healed[3]]
    assert fractions == pytest.approx(sorted(fractions))


def test_page_card_and_table_tell_of_it(healed):
    folder, _spec, report, _seen = healed
    page, card = ((folder / "out" / name).read_text() for name in ("report.html", "README.md"))
    assert "<h2>Healing</h2>" in page
    assert 'aria-label="Over the steps of training: in domain"' in page
    if report.healing.kept:
        assert "healed for" in card
        assert "no retraining" not in page
    from rich.console import Console

    from coppice.console import report_table

    console = Console(width=200, record=True)
    console.print(report_table(report))
    assert "divergence from dense, in domain, held out (12 steps of healing)" in console.export_text()


@pytest.mark.long
def test_a_second_attempt_goes_on_and_gives_the_same_bytes(healed, tmp_path, monkeypatch):
    folder, spec, reference, _seen = healed
    monkeypatch.setattr("pruning_core.training.checkpoints.EVERY_S", 0.0)

    def interrupt(progress):
        if progress.stage == "train" and progress.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "out", device="cpu", scratch=tmp_path / "scratch", on_progress=interrupt)
    report = run(spec, tmp_path / "out", device="cpu", scratch=tmp_path / "scratch")
    assert report.healing.resumed_from == 7
    assert report.healing.points == reference.healing.points
    first, second = (path / "out" / "model.safetensors" for path in (folder, tmp_path))
    assert first.read_bytes() == second.read_bytes()


def written(folder):
    return load_file(folder / "out" / "model.safetensors")


def differ(first, second):
    return any(not torch.equal(first[name], second[name]) for name in first)


def decoder(folder, **sizes):
    """Write a small decoder and texts, and return the fields of a spec for them."""
    write_llama(folder / "model", **sizes)
    tiny.write_jsonl(folder / "texts", rows=200)
    columns = {"text": ["text"]}
    return {
        "model": str(folder / "model"),
        "task": {"type": "text-generation", "dataset": str(folder / "texts"), "columns": columns, "metric": "loss"},
        "target": {"metric": "macs", "keep": 0.5},
        "calibration": {"samples": 16, "max_length": 16, "batch_tokens": 64},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
    }


def test_a_decoder_heals_on_its_own_texts_too(tmp_path):
    fields = decoder(tmp_path)
    plain = run(PruneSpec.model_validate(fields), tmp_path / "plain" / "out", device="cpu")
    heal = {"kind": "distil", "steps": 20, "learning_rate": 2e-3, "judgements": 4}
    spec = PruneSpec.model_validate(fields | {"recovery": {"heal": heal}})
    report = run(spec, tmp_path / "healed" / "out", device="cpu", scratch=tmp_path / "scratch")
    healing = report.healing
    assert [own.kind for own in healing.held_out] == [IN_DOMAIN, OFF_DOMAIN]
    assert all(0 < own.best < own.start for own in healing.held_out)
    assert sum(own.best for own in healing.held_out) / 2 == pytest.approx(healing.held_out_best)
    assert healing.written > 100
    assert report.macs == plain.macs
    # Embeddings are not trained; the rest is.
    before, after = written(tmp_path / "plain"), written(tmp_path / "healed")
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert differ(before, after)
    # Another attempt reads the texts of the first.
    again = run(spec, tmp_path / "again" / "out", device="cpu", scratch=tmp_path / "scratch")
    assert again.healing.resumed_from == 20
    assert not differ(after, written(tmp_path / "again"))


@pytest.mark.long
def test_the_stock_layout_is_healed(learnt, tmp_path):
    report = run(spec_of(*learnt, artifacts={"layout": "stock"}), tmp_path / "out", device="cpu")
    assert report.layout == "stock"
    assert report.healing.steps == 12


@pytest.mark.long
def test_the_layout_for_serving_is_healed(tmp_path):
    fields = decoder(tmp_path, intermediate_size=512)
    served = {
        "artifacts": {"layout": "serve", "engines": ["vllm"]},
        "recovery": {"heal": {"kind": "distil", "steps": 4}},
        "target": {"metric": "macs", "keep": 0.7, "tolerance": 0.1},
    }
    report = run(PruneSpec.model_validate(fields | served), tmp_path / "out", device="cpu", engines=tmp_path / "none")
    assert report.layout == "serve"
    assert report.healing.steps == 4


@pytest.mark.parametrize("method", [{"name": "admm-pattern", "pattern": "1:8"}, {"name": "block-lasso"}])
@pytest.mark.long
def test_what_a_method_sets_to_zero_stays_zero(learnt, tmp_path, method):
    target = None if method["name"] == "admm-pattern" else {"metric": "sparsity", "sparsity": 0.7}
    unrepaired = {"kind": "none"}
    spec = spec_of(*learnt, method=method, target=target, calibration=FLOAT32, recovery={**unrepaired, "heal": LONGER})
    report = run(spec, tmp_path / "healed" / "out", device="cpu")
    plain = run(spec.but(recovery=RecoverySpec(kind="none")), tmp_path / "plain" / "out", device="cpu")
    assert report.healing.kept
    assert report.pattern.violations == 0
    assert report.pattern.zeros >= plain.pattern.zeros
    before, after = written(tmp_path / "plain"), written(tmp_path / "healed")
    assert differ(before, after)
    for matrix in report.pattern.matrices:
        name = f"{matrix.name}.weight"
        assert bool((after[name][before[name] == 0] == 0).all())


@pytest.mark.long
def test_a_rate_that_diverges_returns_the_repaired_weights_and_says_so(tiny_bert, tiny_sst2, tmp_path):
    heal = {"kind": "distil", "steps": 30, "learning_rate": 1, "judgements": 10}
    spec = spec_of(tiny_bert, tiny_sst2, heal=heal)
    report = run(spec, tmp_path / "healed" / "out", device="cpu")
    run(spec.but(recovery=RecoverySpec()), tmp_path / "plain" / "out", device="cpu")
    assert (report.healing.best_step, report.healing.kept) == (0, False)
    assert any(said.startswith("healing found nothing that is surely better") for said in report.warnings)
    assert not differ(written(tmp_path / "plain"), written(tmp_path / "healed"))
    assert "no retraining" in (tmp_path / "healed" / "out" / "report.html").read_text()


@pytest.mark.long
def test_each_target_of_a_frontier_is_healed(tiny_bert, tiny_sst2, tmp_path):
    targets = [{"metric": "macs", "keep": 0.5}, {"metric": "macs", "keep": 0.3}]
    report = run(spec_of(tiny_bert, tiny_sst2, target=None, targets=targets), tmp_path / "out", device="cpu")
    assert [point.healing.steps for point in report.frontier] == [12, 12]


@pytest.mark.long
def test_a_few_seconds_of_a_budget_are_kept(tiny_bert, tiny_sst2, tmp_path):
    heal = {"kind": "distil", "minutes": 0.05, "learning_rate": 1e-3}
    report = run(spec_of(tiny_bert, tiny_sst2, heal=heal), tmp_path / "out", device="cpu")
    assert report.healing.minutes == 0.05
    assert report.healing.steps > 0
    assert report.healing.seconds < 6  # three, and what is not counted: the training set and this machine's other work


@pytest.mark.long
def test_one_class_is_enough(tiny_bert, tmp_path):
    data = tiny.write_dataset(tmp_path / "data")
    for split in ("train", "validation"):
        table = pq.read_table(data / f"{split}.parquet")
        pq.write_table(table.set_column(1, "label", pa.array([1] * len(table))), data / f"{split}.parquet")
    report = run(spec_of(tiny_bert, data), tmp_path / "out", device="cpu")
    assert report.healing.steps == 12


@pytest.mark.long
def test_no_labels_are_needed(tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="embedding")
    data = tiny.write_jsonl(tmp_path / "data")
    task = {"type": "feature-extraction", "dataset": str(data), "columns": {"text": ["text"]}, "metric": "cosine"}
    report = run(spec_of(model, data, task=task), tmp_path / "out", device="cpu")
    assert report.healing.held_out_best <= report.healing.held_out_start


def test_too_few_rows_are_refused_before_the_work(tiny_bert, tmp_path):
    seen = []
    with pytest.raises(DatasetInvalid, match="needs at least 16 training rows"):
        run(
            spec_of(tiny_bert, tiny.write_dataset(tmp_path / "data", rows=12)),
            tmp_path / "out",
            device="cpu",
            on_progress=seen.append,
        )
    assert "score" not in {progress.stage for progress in seen}


def test_the_divergence_over_a_large_vocabulary_is_that_of_autograd():
    drawn = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, 21, 5000, generator=drawn) for _ in range(2))
    found = []
    for of in (kl, kl_of_tokens):
        own = ours.clone().requires_grad_()
        lost = of(own, theirs)
        (lost * torch.arange(42).view(2, 21)).sum().backward()
        found.append((lost.detach(), own.grad))
    torch.testing.assert_close(found[0], found[1])
    assert kl_of_tokens(ours, theirs).shape == (2, 21)
