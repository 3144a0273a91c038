"""Two processes that train side by side do what one does alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pruning_core.arch.adapter import clone
from pruning_core.data.rows import Rows
from pruning_core.errors import PruningError
from pruning_core.methods.admm_pattern.recipe import PatternRecipe
from pruning_core.models.load import load_task_model
from pruning_core.patterns.project import LargestOfBlock
from pruning_core.spec.grammar import parse_pattern
from pruning_core.spec.training import PatternTraining
from pruning_core.training.checkpoints import Checkpoints
from pruning_core.training.dataset import TrainingSet
from pruning_core.training.together import TrainingJob, train, training_devices

CPU = torch.device("cpu")


def job(model, checkpoints=None, **changes):
    dense = load_task_model(model, "text-classification", CPU)
    texts = [" ".join(f"word{(i * k) % 20}" for k in range(1, 3 + i % 9)) for i in range(90)]
    rows = Rows(texts=tuple((text,) for text in texts), labels=tuple(float(i % 2) for i in range(90)))
    options = PatternTraining(epochs=2, learning_rate=1e-3, batch_size=7, holdout=0.1, start="dense", **changes)
    training_set = TrainingSet.draw(dense, rows, options, max_length=32, seed=0, micro_tokens=128)
    student = dense.with_model(clone(dense.model))
    recipe = PatternRecipe(LargestOfBlock(parse_pattern("2:4")), options)
    return TrainingJob(student, dense, training_set, recipe, options, torch.float32, checkpoints)


@pytest.mark.slow
@pytest.mark.parametrize("finish", ["fixed", pytest.param("sr-ste", marks=pytest.mark.matrix)])
@pytest.mark.long
def test_two_processes_give_what_one_gives(tiny_bert, tmp_path, finish):
    alone, steps = job(tiny_bert, finish=finish), []
    reference = train(alone, [CPU], lambda _done: None)
    together = job(tiny_bert, Checkpoints(tmp_path, "this", every_s=0), finish=finish)
    report = train(together, [CPU, CPU], steps.append)
    assert report.processes == 2
    assert steps == list(range(1, report.planned_steps + 1))
    assert (report.steps, report.best_step) == (reference.steps, reference.best_step)
    assert report.held_out_best == pytest.approx(reference.held_out_best, abs=1e-5)
    ours, theirs = together.student.model.state_dict(), alone.student.model.state_dict()
    for name, tensor in theirs.items():
        if not name.endswith("key.bias"):  # nothing depends on it: its gradient is rounding, which Adam makes steps of
            torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
    again = train(job(tiny_bert, Checkpoints(tmp_path, "this"), finish=finish), [CPU, CPU], lambda _done: None)
    assert again.resumed_from == report.steps


@pytest.mark.slow
@pytest.mark.long
def test_a_helper_that_ends_too_early_is_an_error_and_no_hang(tiny_bert):
    broken = job(tiny_bert)

    class Broken:
        """Cannot be made anew in another process: it is no value."""

        def __reduce__(self):
            return (exit, (3,))

        def constraint(self, weights):
            return broken.recipe.constraint(weights)

    with pytest.raises(PruningError, match="ended with code 3"):
        train(replace(broken, recipe=Broken()), [CPU, CPU], lambda _done: None)


def test_a_device_that_was_named_trains_alone():
    assert training_devices(CPU) == (CPU,)
    assert training_devices(torch.device("cuda", 1)) == (torch.device("cuda", 1),)
