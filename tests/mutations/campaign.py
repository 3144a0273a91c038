"""Trying many examples: hypothesis draws them, failures are shrunk, written as files, and counted in a table."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.mutations.strategies import Example, examples
from tests.mutations.trying import GOOD, Outcome, Trier

_MOST_SHRUNK = 60
_MOST_ALIKE = 12


@dataclass
class Tally:
    """What came of all examples."""

    seed: int
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failures: dict[tuple[str, str, str], tuple[Example, Outcome]] = field(default_factory=dict)
    times: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    alike: dict[tuple[str, str, str], list[Example]] = field(default_factory=dict)
    slowest_check_s: float = 0.0

    def add(self, example: Example, outcome: Outcome) -> None:
        """Count an example under each kind of its mutations' and as a whole; keep the shortest of each failure."""
        for kind in ("all", *sorted({one.kind for one in example.mutations})):
            self.counts[kind, outcome.word, outcome.code if not outcome.failed else ""] += 1
        self.slowest_check_s = max(self.slowest_check_s, outcome.check_s)
        if outcome.failed:
            self.times[outcome.key] += 1
            alike = self.alike.setdefault(outcome.key, [])
            if len(alike) < _MOST_ALIKE and len(example.mutations) == 1:  # the same words may be of several causes
                alike.append(example)
            known = self.failures.get(outcome.key)
            if known is None or len(example.mutations) < len(known[0].mutations):
                self.failures[outcome.key] = (example, outcome)

    def as_json(self) -> dict[str, Any]:
        """Give it as an object of JSON."""
        return {
            "seed": self.seed,
            "slowest_check_s": round(self.slowest_check_s, 3),
            "counts": [[*key, count] for key, count in sorted(self.counts.items())],
            "failures": [
                {
                    "word": outcome.word,
                    "code": outcome.code,
                    "place": outcome.place,
                    "times": self.times[key],
                    "message": outcome.message,
                    "param": outcome.param,
                    "example": json.loads(example.as_json()),
                    "alike": [json.loads(one.as_json()) for one in self.alike.get(key, ())],
                }
                for key, (example, outcome) in sorted(self.failures.items(), key=lambda item: -self.times[item[0]])
            ],
        }


def draw(count: int, seed_: int, attempt: Callable[[Example], object], only: tuple[str, ...] = ()) -> None:
    """Draw examples, the same for the same seed."""

    @seed(seed_)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(example=examples(only))
    def tried(example: Example) -> None:
        attempt(example)

    tried()


def campaign(
    trier: Trier,
    count: int,
    seed_: int,
    progress: Callable[[str, Tally], None] = lambda _line, _tally: None,
    only: tuple[str, ...] = (),
) -> Tally:
    """Try examples; go on after failures, and shrink one of each at the end.

    Args:
        trier: What tries them.
        count: How many.
        seed_: Of the draw.
        progress: Told a line, and what came of the examples so far, now and then.
        only: Kinds of mutations; all where there are none.
    """
    tally, tried = Tally(seed_), 0

    def attempt(example: Example) -> None:
        nonlocal tried
        outcome = trier.attempt(example)
        tally.add(example, outcome)
        tried += 1
        if tried % 25 == 0:
            progress(f"{tried}/{count}, {len(tally.failures)} kinds of failure ({sum(tally.times.values())} in all)", tally)

    draw(count, seed_, attempt, only)
    for key, (example, outcome) in list(tally.failures.items())[:_MOST_SHRUNK]:
        tally.failures[key] = shrunk(trier, example, outcome)
    return tally


def shrunk(trier: Trier, example: Example, outcome: Outcome) -> tuple[Example, Outcome]:
    """Leave mutations out as long as the failure stays the same."""
    smaller = True
    while smaller and len(example.mutations) > 1:
        smaller = False
        for number in range(len(example.mutations)):
            fewer = replace(example, mutations=example.mutations[:number] + example.mutations[number + 1 :])
            found = trier.attempt(fewer)
            if found.key == outcome.key:
                example, outcome, smaller = fewer, found, True
                break
    return example, outcome


def write_failures(trier: Trier, tally: Mapping[str, Any], folder: Path) -> None:
    """Write every failure as files: the request, and what to run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, failure in enumerate(tally["failures"], start=1):
        example = Example.from_json(json.dumps(failure["example"]))
        own = folder / f"{number:03}"
        trier.make(example, own)
        repeat = f"python -m tests.mutations --repeat '{example.as_json()}'"
        told = (
            f"{failure['word']} {failure['code']} ({failure['times']} times) at {failure['place']}\n\n{failure['message']}\n\n"
        )
        (own / "FAILURE.txt").write_text(told + repeat + "\n", encoding="utf-8")


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what several processes counted."""
    counts: Counter[tuple[str, str, str]] = Counter()
    failures: dict[tuple[str, str, str], dict[str, Any]] = {}
    seeds, slowest = [], 0.0
    for part in parts:
        seeds += part["seeds"] if "seeds" in part else [part["seed"]]
        slowest = max(slowest, part["slowest_check_s"])
        for kind, word, code, count in part["counts"]:
            counts[kind, word, code] += count
        for one in part["failures"]:
            key = one["word"], one["code"], one["place"]
            known = failures.setdefault(key, {**one, "times": 0})
            known["times"] += one["times"]
            known["alike"] = (known["alike"] + [alike for alike in one["alike"] if alike not in known["alike"]])[:_MOST_ALIKE]
    return {
        "seeds": seeds,
        "slowest_check_s": slowest,
        "counts": [[*key, count] for key, count in sorted(counts.items())],
        "failures": sorted(failures.values(), key=lambda one: -one["times"]),
    }


def table(tally: Mapping[str, Any]) -> str:
    """Make the tables that are printed: by kind of mutation, by code, and the failures."""
    by_kind: dict[str, Counter[str]] = {}
    codes: Counter[tuple[str, str]] = Counter()
    for kind, word, code, count in tally["counts"]:
        by_kind.setdefault(kind, Counter())[word if word in GOOD else "failed"] += count
        if kind == "all":
            codes[word, code] += count
    lines = [f"{'mutation':<12}{'refused':>9}{'done':>7}{'not run':>9}{'failed':>8}"]
    for kind in sorted(by_kind, key=lambda kind: (kind == "all", kind)):
        own = by_kind[kind]
        lines.append(f"{kind:<12}{own['refused']:>9}{own['done']:>7}{own['not run']:>9}{own['failed']:>8}")
    lines += ["", *(f"{count:>6}  {word} {code}" for (word, code), count in sorted(codes.items(), key=lambda one: -one[1]))]
    lines += ["", f"seeds {', '.join(map(str, tally['seeds']))}"] if "seeds" in tally else []
    lines += [f"the slowest check took {tally['slowest_check_s']:.2f} s"]
    lines += [f"{len(tally['failures'])} kinds of failure"]
    for number, one in enumerate(tally["failures"], start=1):
        said = one["message"].splitlines()[0] if one["message"] else ""
        lines.append(f"{number:3}. {one['times']:>4} x {one['word']}: {one['code']} at {one['place'] or '-'}: {said[:200]}")
        lines.append(f"       {json.dumps(one['example'])}")
        lines += [f"       alike: {json.dumps(alike)}" for alike in one["alike"] if alike != one["example"]]
    return "\n".join(lines)
