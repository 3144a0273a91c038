"""Training by several processes, one for each device: each takes its share of every batch, and gradients are summed.

The calling process is the first of them: it reports progress, writes the checkpoints and keeps the result. The helpers are
started for the training, take the same steps on the same state, and end with it.
"""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import torch

from pruning_core.errors import OutOfMemory, PruningError
from pruning_core.machine.resources import memory_is_full, raise_if_exhausted
from pruning_core.report.training import TrainingReport
from pruning_core.spec.training import TrainingOptions
from pruning_core.tasks.base import TaskModel
from pruning_core.training.checkpoints import Checkpoints
from pruning_core.training.dataset import TrainingSet
from pruning_core.training.group import Alone, Group, Joined
from pruning_core.training.judging import Guard
from pruning_core.training.loop import Setting, Trainer
from pruning_core.training.recipe import Recipe, prunable_weights
from pruning_core.training.schedule import Schedule
from pruning_core.training.trainable import make_trainable_

_PATIENCE = timedelta(minutes=10)
# Exit code of a helper that ran out of memory: EX_OSERR of sysexits.h, "cannot fork" and the like.
NO_MEMORY = 71


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training: all that a process needs to take part in it.

    Attributes:
        student: The model, trained in place.
        teacher: The dense model.
        training_set: Training and held-out rows.
        recipe: Makes the constraint.
        options: The method's training options.
        dtype: Format of matrix products.
        checkpoints: Where the state is kept; None: nowhere.
        schedule: Length, learning rate and judgements; None: the epochs of the options.
        guard: What weights must be for them to be kept; None: no more than better on average.
        spent_s: Seconds of a budget that were spent before.
    """

    student: TaskModel
    teacher: TaskModel
    training_set: TrainingSet
    recipe: Recipe
    options: TrainingOptions
    dtype: torch.dtype
    checkpoints: Checkpoints | None
    schedule: Schedule | None = None
    guard: Guard | None = None
    spent_s: float = 0.0

    def run(self, group: Group, on_step: Callable[[int], None] = lambda _done: None) -> TrainingReport:
        """Train in this process."""
        parameters = make_trainable_(self.student, self.training_set.batches(self.training_set.held_out[:1])[0])
        constraint = self.recipe.constraint(prunable_weights(self.student.model))
        setting = Setting(
            self.training_set,
            self.options,
            self.dtype,
            group,
            self.checkpoints,
            on_step,
            self.schedule,
            self.guard,
            self.spent_s,
        )
        return Trainer(self.student, self.teacher, parameters, constraint, setting).run()

    def on(self, device: torch.device) -> TrainingJob:
        """Return the same training with copies of its models on another device."""
        student, teacher = (
            own.with_model(copy.deepcopy(own.model).to(device))  # pyright: ignore[reportArgumentType] - transformers' stub of `to`
            for own in (self.student, self.teacher)
        )
        return replace(self, student=student, teacher=teacher)


def training_devices(device: torch.device) -> tuple[torch.device, ...]:
    """Return the devices to train on: all GPUs, unless the run's device is the CPU or one GPU by number."""
    index = cast("int | None", device.index)  # torch's stubs forget that there may be none
    if device.type != "cuda" or index is not None or torch.cuda.device_count() < 2:
        return (device,)
    return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))


def train(job: TrainingJob, devices: Sequence[torch.device], on_step: Callable[[int], None]) -> TrainingReport:
    """Train on one device in this process, or on several with one process each.

    Raises:
        OutOfMemory: One of the processes has run out of memory.
        PruningError: One of the processes has ended too early.
    """
    if len(devices) == 1:
        return job.run(Alone(), on_step)
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        payload = pickle.dumps(job.on(torch.device("cpu")))
        with _helpers(payload, meeting, devices) as helpers:
            _wait_for(helpers, meeting)
            try:
                with _joined(0, meeting, devices):
                    return job.run(Joined(0, len(devices)), on_step)
            except RuntimeError as error:
                raise_if_exhausted(error, "the model was trained")
                for helper in helpers:
                    helper.join(timeout=5)
                _check(helpers, error)
                raise


@contextmanager
def _helpers(payload: bytes, meeting: Path, devices: Sequence[torch.device]) -> Generator[list[BaseProcess]]:
    """Start the helper processes, and end them when the context closes."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // len(devices))
    helpers: list[BaseProcess] = [
        context.Process(target=help_train, args=(payload, rank, str(meeting), tuple(devices), threads), daemon=True)
        for rank in range(1, len(devices))
    ]
    try:
        for helper in helpers:
            helper.start()
        yield helpers
        for helper in helpers:
            helper.join(timeout=30)
    finally:
        for helper in helpers:
            if helper.pid is not None and helper.is_alive():
                helper.kill()
                helper.join()


def _wait_for(helpers: Sequence[BaseProcess], meeting: Path) -> None:
    """Wait until all helpers have their models: a process that joins the group would wait for a helper that has died."""
    while not all(_ready(meeting, rank).exists() for rank in range(1, len(helpers) + 1)):
        _check(helpers, None)
        time.sleep(0.05)


def _check(helpers: Sequence[BaseProcess], cause: Exception | None) -> None:
    codes = [helper.exitcode for helper in helpers if helper.exitcode]
    if NO_MEMORY in codes or -signal.SIGKILL in codes:  # by its own word, or most likely the kernel's
        raise OutOfMemory(
            "out of memory in a process that trains side by side with others; lower method.training.batch_size"
        ) from cause
    if codes:
        raise PruningError(
            f"a process that trains side by side with others ended with code {codes[0]}; the log says why"
        ) from cause


def _ready(meeting: Path, rank: int) -> Path:
    return meeting.with_name(f"ready.{rank}")


def take_part(payload: bytes, rank: int, meeting: str, devices: tuple[torch.device, ...], threads: int) -> None:
    """Take part in a training. This is the body of a helper process."""
    torch.set_num_threads(threads)
    job: TrainingJob = pickle.loads(payload)  # noqa: S301 - from the process that started this one
    job = job.on(devices[rank])
    _ready(Path(meeting), rank).touch()
    with _joined(rank, Path(meeting), devices):
        job.run(Joined(rank, len(devices)))


def help_train(payload: bytes, rank: int, meeting: str, devices: tuple[torch.device, ...], threads: int) -> None:
    """Take part, and end with a code of its own where memory runs out: the process that started this one tells it on."""
    try:
        take_part(payload, rank, meeting, devices, threads)
    except Exception as error:
        if not memory_is_full(error):
            raise
        traceback.print_exc()
        sys.exit(NO_MEMORY)


@contextmanager
def _joined(rank: int, meeting: Path, devices: Sequence[torch.device]) -> Generator[None]:
    """Join torch's default process group while the context is open. Processes meet by a file, so no port is opened for that."""
    from torch import distributed

    device = devices[rank]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=meeting.resolve().as_uri(),
        rank=rank,
        world_size=len(devices),
        timeout=_PATIENCE,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
