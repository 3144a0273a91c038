"""``python -m tests.mutations``: try many mutations of good requests, and print what came of them. ``make test-mutations``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.mutations.campaign import Tally, campaign, merged, table, write_failures
from tests.mutations.strategies import Example
from tests.mutations.trying import Trier

_SEED = 19


def main(arguments: Sequence[str]) -> int:
    """Try, print the tables, and return 1 where an example failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=_SEED, help="the same seed draws the same examples")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--only", nargs="*", default=[], help="kinds of mutations, such as rows")
    parser.add_argument("--json", type=Path, help="file for the counts and the failures")
    parser.add_argument("--failures", type=Path, help="folder for the files of every failure")
    parser.add_argument("--repeat", help="an example, as a failure prints it: tried alone, and told in full")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if asked.processes == 2 and asked.repeat is None:
        found = _in_two(asked.examples, asked.seed, asked.only)
    else:
        with tempfile.TemporaryDirectory(prefix="coppice-mutations-") as scratch:
            trier = Trier(Path(scratch))
            try:
                if asked.repeat is not None:
                    outcome = trier.attempt(Example.from_json(asked.repeat))
                    print(outcome.word, outcome.code, outcome.place, outcome.param, outcome.message, sep="\n")
                    return int(outcome.failed)
                begun = time.monotonic()
                found = merged(
                    [campaign(trier, asked.examples, asked.seed, partial(_tell, asked.json), tuple(asked.only)).as_json()]
                )
                print(f"{asked.examples} examples in {time.monotonic() - begun:.0f} s")
            finally:
                trier.close()
    print(table(found))
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if asked.failures is not None:
        _write(found, asked.failures)
    for line in found.get("unfinished", ()):
        print(f"NOT ALL WAS TRIED: the process of {line}")
    return int(bool(found["failures"] or found.get("unfinished")))


def _tell(path: Path | None, line: str, tally: Tally) -> None:
    """Show where it is, and keep what was found so far, for a run that is ended early."""
    print(line, file=sys.stderr, flush=True)
    if path is not None:
        path.write_text(json.dumps(merged([tally.as_json()]), indent=1), encoding="utf-8")


def _in_two(examples: int, seed: int, only: Sequence[str]) -> dict[str, Any]:
    """Divide the work between two processes, with seeds of their own."""
    with tempfile.TemporaryDirectory(prefix="coppice-mutations-") as folder:
        parts = [Path(folder) / f"{number}.json" for number in range(2)]
        command = [sys.executable, "-m", "tests.mutations", "--processes", "1", "--only", *only]
        running = [
            subprocess.Popen(
                [*command, "--examples", str(count), "--seed", str(seed + number), "--json", str(part)],
                stdout=subprocess.DEVNULL,
            )
            for number, (part, count) in enumerate(zip(parts, (examples - examples // 2, examples // 2), strict=True))
        ]
        ended = [process.wait() for process in running]
        found = merged([json.loads(part.read_text(encoding="utf-8")) for part in parts if part.is_file()])
        found["unfinished"] = [
            f"seed {seed + number} ended with {code}" for number, code in enumerate(ended) if code not in (0, 1)
        ]
        return found


def _write(found: dict[str, Any], folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="coppice-mutations-") as scratch:
        trier = Trier(Path(scratch))
        try:
            write_failures(trier, found, folder)
        finally:
            trier.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
