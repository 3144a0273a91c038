"""What a worker says that it serves, by its settings and by what torch finds."""

from __future__ import annotations

import pytest

from app.jobs.needs import Abilities
from app.settings import Settings
from worker.abilities import abilities_of, ask_torch
from worker.probe import TorchProbe
from worker.tasks import for_one_device

GIB = 2**30


def _never(device):
    raise AssertionError(f"torch was asked for {device!r}")


def test_a_cpu_is_taken_at_its_word():
    settings = Settings(devices=("cpu", "cpu"), worker_tags=("b", "a"))
    assert abilities_of(settings, _never) == Abilities(device="cpu", tags=("a", "b"))


def test_the_smallest_gpu_counts():
    sizes = {"cuda:0": 80 * GIB, "cuda:1": 24 * GIB}
    found = abilities_of(
        Settings(devices=tuple(sizes)), lambda name: TorchProbe(torch="2", device=name, memory_bytes=sizes[name])
    )
    assert (found.device, found.gpu_bytes, found.pool) == ("cuda", 24 * GIB, "cuda-24")


def test_a_gpu_that_torch_cannot_use_is_served_as_it_was_named():
    found = abilities_of(Settings(device="cuda:3"), lambda _name: TorchProbe(torch="2", error="torch sees 0 CUDA devices"))
    assert (found.device, found.gpu_bytes) == ("cuda", None)


@pytest.mark.long
def test_torch_is_asked_in_a_process_of_its_own():
    assert ask_torch("cpu").device == "cpu"
    assert "torch sees" in ask_torch("cuda:99").error


def test_each_process_of_the_pool_has_a_device():
    settings = Settings(devices=("cuda:0", "cuda:1"))
    assert [for_one_device(settings, index).device for index in range(2)] == ["cuda:0", "cuda:1"]
    assert for_one_device(Settings(), 0).device == ""
