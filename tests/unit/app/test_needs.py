"""What jobs need against what workers have."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.jobs.needs import NO_NEEDS, Abilities, Needs, why_nobody

GIB = 2**30


@pytest.mark.parametrize(
    ("needs", "queue"),
    [
        (Needs(), "any"),
        (Needs(device="cpu"), "cpu"),
        (Needs(device="cuda", gpu_memory_bytes=5), "cuda"),
        (Needs(tags=("b", "a", "b")), "any+a+b"),
    ],
)
def test_a_queue_names_needs_and_is_read_back(needs, queue):
    assert needs.queue == queue
    assert Needs.of(queue, needs.gpu_memory_bytes) == needs


@pytest.mark.parametrize(
    "given",
    [
        {"device": "tpu"},
        {"tags": ["A100"]},
        {"tags": ["a+b"]},
        {"tags": ["a", "b", "c", "d", "e"]},
        {"gpu_memory_bytes": 5},
        {"gpu_memory_bytes": 0, "device": "cuda"},
        {"memory": 5},
    ],
)
def test_needs_that_make_no_sense_are_refused(given):
    with pytest.raises(ValidationError):
        Needs.model_validate(given)


def test_memory_is_predicted_only_for_a_gpu_and_where_none_was_asked_for():
    assert NO_NEEDS.with_memory(5) == NO_NEEDS
    assert Needs(device="cuda").with_memory(5).gpu_memory_bytes == 5
    assert Needs(device="cuda").with_memory(None).gpu_memory_bytes is None
    assert Needs(device="cuda", gpu_memory_bytes=7).with_memory(5).gpu_memory_bytes == 7


@pytest.mark.parametrize(
    ("worker", "needs", "served"),
    [
        (Abilities(), NO_NEEDS, True),
        (Abilities(), Needs(device="cpu"), True),
        (Abilities(), Needs(device="cuda"), False),
        (Abilities(device="cuda", gpu_bytes=24 * GIB), Needs(device="cpu"), False),
        (Abilities(device="cuda", gpu_bytes=24 * GIB), Needs(device="cuda", gpu_memory_bytes=24 * GIB), True),
        (Abilities(device="cuda", gpu_bytes=24 * GIB), Needs(device="cuda", gpu_memory_bytes=24 * GIB + 1), False),
        (Abilities(device="cuda"), Needs(device="cuda", gpu_memory_bytes=24 * GIB), True),
        (Abilities(tags=("a", "b")), Needs(tags=("b",)), True),
        (Abilities(tags=("a",)), Needs(tags=("a", "b")), False),
    ],
)
def test_a_worker_serves_what_it_has(worker, needs, served):
    assert worker.serves(needs) is served


def test_pools_are_named_by_what_their_workers_have():
    assert Abilities().pool == "cpu"
    assert Abilities(device="cuda", gpu_bytes=80 * GIB - 5, tags=("a", "b")).pool == "cuda-80+a+b"


def test_the_reason_names_what_is_missing():
    cuda = Abilities(device="cuda", gpu_bytes=24 * GIB, tags=("a",))
    assert "have cpu alone" in why_nobody(Needs(device="cuda"), [Abilities()])
    assert "have the tags a" in why_nobody(Needs(device="cuda", tags=("b",)), [cuda])
    assert "largest GPU of a worker has 24.0 GiB" in why_nobody(Needs(device="cuda", gpu_memory_bytes=30 * GIB), [cuda])
