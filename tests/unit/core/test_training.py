"""The training loop on tiny models with real gradients: it learns, resumes to the same bits, stops, and gives up with grace."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.models.load import load_task_model
from pruning_core.patterns.project import LargestOfBlock
from pruning_core.spec.grammar import parse_pattern
from pruning_core.spec.training import PatternTraining, TrainingOptions
from pruning_core.training.admm_penalty import Admm
from pruning_core.training.checkpoints import Checkpoints
from pruning_core.training.constraint import Moment, Unconstrained
from pruning_core.training.dataset import TrainingSet
from pruning_core.training.loop import Setting, Trainer
from pruning_core.training.masking import FixedSupport, SrSte, project
from pruning_core.training.phases import Phase, Phases
from pruning_core.training.trainable import make_trainable_
from tests import tiny

TWO_OF_FOUR = LargestOfBlock(parse_pattern("2:4"))
OPTIONS = TrainingOptions(epochs=2, learning_rate=2e-3, batch_size=16, distillation=0.5, judgements=2, holdout=0.1)


@pytest.fixture(scope="module")
def dense(tiny_bert):
    return load_task_model(tiny_bert, "text-classification", torch.device("cpu"))


@pytest.fixture(scope="module")
def rows():
    return tiny.rows_to_learn()


class Lab:
    """A student ready to be trained."""

    def __init__(self, dense, rows, options=OPTIONS, **setting):
        self.dense, self.options = dense, options
        self.student = dense.with_model(clone(dense.model))
        training_set = TrainingSet.draw(dense, rows, options, max_length=32, seed=0, micro_tokens=256)
        self.parameters = make_trainable_(self.student, training_set.batches(training_set.held_out)[0])
        self.weights = {path: linear.weight for path, linear in adapt(self.student.model).linears.items()}
        self.setting = Setting(training_set, options, torch.float32, **setting)

    def train(self, constraint):
        return Trainer(self.student, self.dense, self.parameters, constraint, self.setting).run()

    def state(self):
        return {name: tensor.clone() for name, tensor in self.student.model.state_dict().items()}

    def admm_then(self, finish="fixed", **changes):
        options = PatternTraining(**changes)

        def second():
            return FixedSupport(self.weights) if finish == "fixed" else SrSte(self.weights, TWO_OF_FOUR, 0.1)

        admm = lambda: Admm(  # noqa: E731
            self.weights,
            TWO_OF_FOUR,
            rho=(options.rho_first, options.rho_last),
            growth=options.rho_growth,
            penalty=options.penalty,
        )
        return Phases([Phase(0.5, admm), Phase(0.5, second)])


def satisfied(weights):
    return all(bool(((weight.detach().unflatten(1, (-1, 4)) != 0).sum(-1) <= 2).all()) for weight in weights.values())


def test_it_learns_and_leaves_the_teacher_alone(dense, rows):
    before = {name: tensor.clone() for name, tensor in dense.model.state_dict().items()}
    lab = Lab(dense, rows, TrainingOptions(epochs=6, learning_rate=3e-3, batch_size=16, distillation=0, hidden=0, holdout=0.2))
    report = lab.train(Unconstrained(lab.weights))
    assert report.held_out_best < 0.8 * report.held_out_start
    assert (report.ending, report.steps, report.epochs) == ("finished", report.planned_steps, 6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.model.state_dict().items())
    embedded = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(lab.student.model.state_dict()[embedded], before[embedded])
    assert not any(parameter.requires_grad for parameter in lab.student.model.parameters())


def test_the_dense_model_itself_is_the_optimum_of_distillation_alone(dense, rows):
    lab = Lab(dense, rows, OPTIONS.model_copy(update={"distillation": 1.0}))
    report = lab.train(Unconstrained(lab.weights))
    assert report.held_out_start == pytest.approx(0, abs=1e-6)
    assert report.best_step == 0  # the start is a candidate too, and nothing is better


@pytest.mark.parametrize("penalty", ["decoupled", "coupled"])
@pytest.mark.parametrize("finish", ["fixed", "sr-ste"])
def test_admm_ends_in_the_pattern_and_its_curves_show_how(dense, rows, penalty, finish):
    lab = Lab(dense, rows)
    report = lab.train(lab.admm_then(finish, penalty=penalty))
    assert satisfied(lab.weights)
    assert [phase.phase for phase in report.phases] == ["admm", finish]
    admm = [point.measures for point in report.points if point.phase == "admm" and point.step]
    assert admm[-1]["rho"] == pytest.approx(1.0)  # its last value, however few steps there are
    assert admm[-1]["primal"] > 0
    assert report.held_out_best < report.held_out_start


@pytest.mark.parametrize("finish", ["fixed", "sr-ste"])
@pytest.mark.parametrize("stop_at", [3, 9, 12, 17])
def test_a_resumed_training_gives_the_same_bits(dense, rows, tmp_path, finish, stop_at):
    options = OPTIONS.model_copy(update={"dropout": True})
    whole = Lab(dense, rows, options)
    reference = whole.train(whole.admm_then(finish))

    def interrupt(done):
        if done == stop_at:
            raise KeyboardInterrupt

    checkpoints = Checkpoints(tmp_path, "this one", every_s=0)
    first = Lab(dense, rows, options, checkpoints=checkpoints, on_step=interrupt)
    with pytest.raises(KeyboardInterrupt):
        first.train(first.admm_then(finish))
    second = Lab(dense, rows, options, checkpoints=Checkpoints(tmp_path, "this one", every_s=0))
    report = second.train(second.admm_then(finish))
    assert report.resumed_from == stop_at
    assert all(torch.equal(tensor, whole.state()[name]) for name, tensor in second.state().items())
    assert report.points == reference.points
    third = Lab(dense, rows, options, checkpoints=Checkpoints(tmp_path, "this one", every_s=0))
    assert third.train(third.admm_then(finish)).steps == report.steps  # finished: nothing is trained again
    assert all(torch.equal(tensor, whole.state()[name]) for name, tensor in third.state().items())


def test_a_checkpoint_of_another_training_or_a_broken_one_is_not_taken_up(dense, rows, tmp_path):
    lab = Lab(dense, rows, checkpoints=Checkpoints(tmp_path, "one", every_s=0))
    lab.train(Unconstrained(lab.weights))
    assert Checkpoints(tmp_path, "one").load() is not None
    assert Checkpoints(tmp_path, "another").load() is None
    path = Checkpoints(tmp_path, "one").path
    path.write_bytes(path.read_bytes()[:1000])
    assert Checkpoints(tmp_path, "one").load() is None


def test_a_loss_that_is_no_number_leaves_the_best_weights_so_far(dense, rows):
    class Poison(Unconstrained):
        def after_step(self, moment: Moment) -> None:
            if moment.step == 6:
                with torch.no_grad():
                    next(iter(self.weights.values())).fill_(float("nan"))

    lab = Lab(dense, rows)
    report = lab.train(Poison(lab.weights))
    assert (report.ending, report.reason) == ("diverged", "the loss of step 8 is no number")
    assert all(tensor.isfinite().all() for tensor in lab.state().values())
    assert report.best_step < 8


def test_a_loss_that_explodes_is_divergence_too(tmp_path, rows):
    model = tiny.write_model(tmp_path / "model", "bert", num_labels=1)
    dense = load_task_model(model, "regression", torch.device("cpu"))
    options = OPTIONS.model_copy(update={"learning_rate": 1.0, "epochs": 20, "hidden": 0.0, "distillation": 0.0})
    lab = Lab(dense, rows, options)
    report = lab.train(Unconstrained(lab.weights))
    assert report.ending == "diverged"
    assert "that of guessing would be" in report.reason
    assert report.best_step < report.steps
    assert report.points[-1].held_out is None or report.points[-1].held_out > report.held_out_best
    # What is left are the weights of the best step, not those that exploded.
    training_set = lab.setting.training_set
    with torch.no_grad():
        lost = sum(
            float(dense.family.losses(lab.student.outputs(batch.inputs).float(), batch).sum())
            for batch in training_set.batches(training_set.held_out)
        )
    assert lost / len(training_set.held_out) == pytest.approx(report.held_out_best, rel=1e-4)


def test_patience_ends_it_early(dense, rows):
    lab = Lab(dense, rows, OPTIONS.model_copy(update={"distillation": 1.0, "patience": 2}))
    report = lab.train(Unconstrained(lab.weights))
    assert report.ending == "early"
    assert report.steps < report.planned_steps


def test_every_epoch_has_every_row_once_in_another_order(dense, rows):
    training_set = TrainingSet.draw(dense, rows, OPTIONS, max_length=32, seed=0, micro_tokens=256)
    first, second = training_set.epoch(0, 16), training_set.epoch(1, 16)
    assert first != second
    assert sorted(row for batch in first for row in batch) == sorted(training_set.train)
    assert not set(training_set.train) & set(training_set.held_out)
    assert training_set.epoch(0, 16) == first


def test_the_coupled_penalty_has_a_gradient():
    """The public code's defect: a penalty on detached tensors, whose gradient is zero."""
    weights = {"one": torch.nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))}
    admm = Admm(weights, TWO_OF_FOUR, rho=(0.5, 1.0), growth=1.1, penalty="coupled")
    admm.begin(10)
    weight = weights["one"]
    weight.grad = torch.zeros_like(weight)
    admm.before_step(Moment(0, 10, 1e-3, 1e-3))
    explicit = weight.detach().clone().requires_grad_()
    (0.25 * (explicit - admm.Z["one"] + admm.U["one"]).square().sum()).backward()
    torch.testing.assert_close(weight.grad, explicit.grad)
    assert bool((weight.grad[~project(weight, TWO_OF_FOUR)] != 0).all())


def test_the_decoupled_penalty_is_the_proximal_step():
    weights = {"one": torch.nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))}
    admm = Admm(weights, TWO_OF_FOUR, rho=(0.5, 1.0), growth=1.1, penalty="decoupled")
    admm.begin(1000)
    before, pruned = weights["one"].detach().clone(), ~project(weights["one"], TWO_OF_FOUR)
    admm.after_step(Moment(0, 1000, 1e-3, 1e-3))
    after = weights["one"].detach()
    # argmin over V of 1/2 ||V - W||^2 + rho/2 ||V - Z||^2, and U is still zero
    torch.testing.assert_close(after, (before + 0.5 * admm.Z["one"]) / 1.5)
    assert bool((after[pruned].abs() < before[pruned].abs()).all())


def test_duals_follow_boyd():
    weights = {"one": torch.nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))}
    admm = Admm(weights, TWO_OF_FOUR, rho=(1e-3, 1.0), growth=1.1, penalty="coupled")
    admm.begin(74)
    W = weights["one"].detach().clone()
    admm.after_step(Moment(0, 74, 1e-3, 1e-3))
    Z = W * project(W, TWO_OF_FOUR)
    torch.testing.assert_close(admm.Z["one"], Z)
    torch.testing.assert_close(admm.rho * admm.U["one"], 1e-3 * (W - Z))  # the multiplier does not jump when rho does
    admm.after_step(Moment(1, 74, 1e-3, 1e-3))
    assert admm.measures()["primal"] == pytest.approx(float((W - admm.Z["one"]).norm() / admm.Z["one"].norm()), rel=1e-4)


@pytest.mark.parametrize("first", [1e-3, 0.5])
def test_without_a_gradient_kept_weights_stay_as_they_were_under_admm(first):
    """The dual must not wind up while the proximal steps are small: the projection would flip, and kept weights change."""
    steps, dense = 61, torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    weights = {"one": torch.nn.Parameter(dense.clone())}
    admm = Admm(weights, TWO_OF_FOUR, rho=(first, 1.0), growth=1.1, penalty="decoupled")
    admm.begin(steps)
    for step in range(steps):
        admm.after_step(Moment(step, steps, 5e-5 * (1 - step / steps), 5e-5))
    support = project(dense, TWO_OF_FOUR)
    apart = float(weights["one"].detach()[~support].norm() / dense[~support].norm())
    assert apart < 0.5
    admm.finish()
    torch.testing.assert_close(weights["one"].detach(), dense * support)


def test_sr_ste_decays_pruned_weights_alone_and_runs_on_masked_ones():
    weights = {"one": torch.nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))}
    ste = SrSte(weights, TWO_OF_FOUR, decay=0.25)
    before, support = weights["one"].detach().clone(), project(weights["one"], TWO_OF_FOUR)
    moment = Moment(0, 10, 5e-4, 1e-3)
    ste.before_forward(moment)
    assert torch.equal(weights["one"].detach(), before * support)
    ste.before_step(moment)
    assert torch.equal(weights["one"].detach(), before)
    ste.after_step(moment)
    assert torch.equal(weights["one"].detach()[support], before[support])
    torch.testing.assert_close(weights["one"].detach()[~support], before[~support] * (1 - 0.25 * 0.5))


def test_labels_are_not_needed_where_distillation_alone_drives_it(dense, rows):
    unlabelled = replace(rows, labels=None)
    lab = Lab(dense, unlabelled, OPTIONS.model_copy(update={"distillation": 1.0}))
    with torch.no_grad():
        for weight in lab.weights.values():
            weight.mul_(project(weight, TWO_OF_FOUR))
    report = lab.train(FixedSupport(lab.weights))
    assert report.held_out_best < report.held_out_start
    assert satisfied(lab.weights)
