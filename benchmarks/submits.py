"""What a submit costs beside a bare insert of the same durability, on both databases: ``python -m benchmarks.submits``.

The bare insert (`benchmarks.bare`) is a server of its own with the same web server, the same pool of threads and a database of
the same kind on the same disk. All are measured in turns within one run, so that other work on this host touches all alike.
``--before PATH`` measures another checkout of this repository in the same turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from benchmarks.bare import Inserts
from benchmarks.load import CLIENTS, at_once, load, p99
from benchmarks.profiles import Bench, profiles
from coppice import Client
from tests.faults.cluster import Cluster
from tests.integration.service import answers
from tests.servers import wait_until

MOST_TIMES_THE_COST, MOST_TIMES_THE_P99 = 1.5, 3.0

Body = Callable[[int], str]
Figures = dict[str, float]


@dataclass(frozen=True)
class Subject:
    """What is measured: a function that takes seconds of load and returns the milliseconds of each request, and its process."""

    name: str
    run: Callable[[float], list[float]]
    process: psutil.Process

    def busy_s(self) -> float:
        """Return the seconds of a processor that its process has taken."""
        return sum(self.process.cpu_times()[:2])


def measure(bench: Bench, before: Path | None, seconds: float, rounds: int, *, files: bool) -> dict[str, Figures]:
    """Measure bare inserts and submits in turns.

    Args:
        bench: The profile.
        before: Another checkout; None: there is none.
        seconds: Of load on each subject in each round.
        rounds: How often each has its turn.
        files: Whether submits of models and data on this host are measured, too, whose files are looked at.
    """
    with ExitStack() as stack:
        bodies = {"model on the Hub": _on_the_hub(bench)} | ({"files here": _here(bench)} if files else {})
        subjects = [_bare(stack, bench, bodies["model on the Hub"]), _bare_without_http(stack, bench)]
        for name, tree in [("submit", None)] + ([("submit before", before)] if before is not None else []):
            cluster = bench.cluster(tree)
            stack.enter_context(cluster.api())
            process = _process_of(cluster)
            for what, body in bodies.items():
                subjects.append(Subject(f"{name}, {what}", partial(load, cluster.url, "POST", "/v1/jobs", body), process))
        taken: dict[str, list[float]] = {subject.name: [] for subject in subjects}
        busy_s = dict.fromkeys(taken, 0.0)
        for subject in subjects:
            subject.run(1)  # connections, caches, files of the database
        for _ in range(rounds):
            for subject in subjects:
                before_s = subject.busy_s()
                taken[subject.name] += subject.run(seconds)
                busy_s[subject.name] += subject.busy_s() - before_s
    bare = taken[subjects[0].name]
    return {
        name: _figures(times, bare, seconds * rounds) | {"cpu_ms": 1000 * busy_s[name] / len(times)}
        for name, times in taken.items()
    }


def _figures(times: list[float], bare: list[float], seconds: float) -> Figures:
    return {
        "per_s": len(times) / seconds,
        "p50_ms": statistics.median(times),
        "p99_ms": p99(times),
        "times_the_cost": len(bare) / len(times),
        "times_the_p99": p99(times) / p99(bare),
    }


def _bare(stack: ExitStack, bench: Bench, body: Body) -> Subject:
    cluster = bench.cluster()
    port = cluster.url.rpartition(":")[2]
    process = stack.enter_context(cluster.process("bare", "-m", "benchmarks.bare", _url_of(cluster), port))
    with Client(cluster.url, retry_for_s=0) as impatient:
        wait_until(lambda: answers(impatient), "the bare server to answer")
    return Subject("bare insert", partial(load, cluster.url, "POST", "/v1/jobs", body), process)


def _bare_without_http(stack: ExitStack, bench: Bench) -> Subject:
    inserts = Inserts(_url_of(bench.cluster()))
    stack.callback(inserts.close)
    spec = _on_the_hub(bench)(0)

    def act(_client: None, _number: int) -> None:
        inserts.one(spec)

    return Subject(
        "bare insert, threads without HTTP", partial(at_once, lambda: None, act, lambda _client: None), psutil.Process()
    )


def _process_of(cluster: Cluster) -> psutil.Process:
    port = cluster.url.rpartition(":")[2]
    own = psutil.Process().children(recursive=True)
    return next(one for one in own if "api" in one.cmdline() and port in one.cmdline())


def _url_of(cluster: Cluster) -> str:
    database = cluster.backend.database()
    try:
        return database.url.render_as_string(hide_password=False)
    finally:
        database.close()


def _on_the_hub(bench: Bench) -> Body:
    asked = bench.nap(0).model_dump(mode="json", exclude_unset=True)
    asked |= {"model": "org/model", "task": {"name": "glue/sst2", "dataset": "nyu-mll/glue"}}
    return lambda number: json.dumps(asked | {"seed": number})


def _here(bench: Bench) -> Body:
    asked = bench.nap(0).model_dump(mode="json", exclude_unset=True)
    return lambda number: json.dumps(asked | {"seed": number})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of load on each subject in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--before", type=Path, help="another checkout, measured in the same turns")
    parser.add_argument("--files", action="store_true", help="submits whose files are looked at, too")
    parser.add_argument("--profiles", nargs="+", default=["SQLite", "PostgreSQL"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/submits.json"))
    options = parser.parse_args()
    results: dict[str, dict[str, Figures]] = {}
    with profiles(durable=True) as benches:
        for bench in benches:
            if any(word in bench.profile for word in options.profiles):
                results[bench.profile] = measure(bench, options.before, options.seconds, options.rounds, files=options.files)
                _print(bench.profile, results[bench.profile])
    found = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "python": sys.version.split()[0], "results": results}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; written to {options.out}")


def _print(profile: str, found: dict[str, Figures]) -> None:
    print(f"\n{profile}, {CLIENTS} clients, load {os.getloadavg()[0]:.1f}")
    print(f"  {'':36}{'per s':>9}{'p50 ms':>9}{'p99 ms':>9}{'x cost':>9}{'x p99':>9}{'cpu ms':>9}")
    for name, one in found.items():
        cells = (one["per_s"], one["p50_ms"], one["p99_ms"], one["times_the_cost"], one["times_the_p99"], one["cpu_ms"])
        print(f"  {name:36}" + "".join(f"{cell:9.2f}" for cell in cells), flush=True)
    print(f"  goals of submits: cost at most {MOST_TIMES_THE_COST:g} x, p99 at most {MOST_TIMES_THE_P99:g} x the bare insert's")


if __name__ == "__main__":
    main()
