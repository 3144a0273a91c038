"""Attacks on the API: each ends in a clear refusal, while /healthz answers and memory stays within the container's."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.attacks.attack import Attack
from tests.attacks.catalogue import archives, connections, models, requests
from tests.attacks.target import LIMIT_BYTES, Target, Window
from tests.attacks.wire import CLOSED, SILENT, Answer

pytestmark = [pytest.mark.attack, pytest.mark.timeout(180)]

ATTACKS: list[Attack] = [*archives.ATTACKS, *models.ATTACKS, *requests.ATTACKS, *connections.ATTACKS]
# Above it, a probe of Kubernetes or a balancer would begin to doubt. The watch's own lateness is the host's, and is taken off.
HEALTH_S = float(os.environ.get("ATTACKS_HEALTH_S", "0.2"))


def test_names_are_unique() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names))
    assert len(names) >= 60


@pytest.mark.parametrize(
    "attack", [pytest.param(own, id=own.name, marks=[pytest.mark.short] if own.short else []) for own in ATTACKS]
)
def test_it_is_refused_and_the_service_goes_on(attack: Attack, target: Target, told: list[dict[str, Any]]) -> None:
    made = attack.make()
    answers: list[Answer] = []
    why: list[str] = []
    time.sleep(0.1)
    began = time.monotonic()
    finished = _in_time(lambda: _act(attack, target, made, answers, why), attack.limit_s)
    time.sleep(max(0.0, began + 0.1 - time.monotonic()))  # for the watch to have looked at least once
    ended = time.monotonic()
    window = target.window(began, ended)
    if not finished:
        why.append(f"not over after {attack.limit_s:g} s")
    if target.restart_if_silent():
        why.append("the API had to be started anew")
    why += [missed for answer in answers if (missed := attack.expected.misses(answer)) is not None][:1]
    why += [f"the answer has {leak!r}" for answer in answers if (leak := target.leaks(answer.body)) is not None][:1]
    why += unhealthy(window)
    last = answers[-1] if answers else Answer(SILENT)
    told.append(row(attack.name, attack.row, shown(last), ended - began, window, why))
    assert not why, "; ".join(why)


@pytest.mark.short
def test_an_honest_tenant_is_served_afterwards(target: Target) -> None:
    target.honest()


def unhealthy(window: Window) -> list[str]:
    """Say what the watch saw that may not be."""
    found: list[str] = []
    if window.worst_s - window.late_s > HEALTH_S:
        found.append(f"/healthz took {window.worst_s * 1000:.0f} ms (the watch itself was {window.late_s * 1000:.0f} ms late)")
    if window.peak_bytes > LIMIT_BYTES:
        found.append(f"the API took {window.peak_bytes / 2**20:.0f} MiB")
    return found


def row(name: str, of: str, answer: str, seconds: float, window: Window, why: list[str]) -> dict[str, Any]:
    """Make a row of the table."""
    return {
        "attack": name,
        "row": of,
        "answer": answer,
        "seconds": round(seconds, 2),
        "worst_ms": round(window.worst_s * 1000, 1),
        "late_ms": round(window.late_s * 1000, 1),
        "peak_mb": round(window.peak_bytes / 2**20),
        "why": "; ".join(why),
    }


def shown(answer: Answer) -> str:
    """Name an answer."""
    names = {CLOSED: "closed", SILENT: "no answer"}
    return names.get(answer.status, f"{answer.status} {answer.code}".strip())


def _act(attack: Attack, target: Target, made: object, answers: list[Answer], why: list[str]) -> None:
    try:
        found = attack.act(target, made)
        answers += [found] if isinstance(found, Answer) else list(found)
    except (AssertionError, OSError, KeyError, IndexError) as error:
        why.append(f"{type(error).__name__}: {error}"[:300])


def _in_time(work: Callable[[], None], limit_s: float) -> bool:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit_s)
    return not thread.is_alive()
