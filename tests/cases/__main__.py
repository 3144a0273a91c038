"""``python -m tests.cases [FOLDER]``: run a folder of cases, and print what came of each as a table. ``make test-cases``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.cases.judging import Expectations, Verdict, expectations_of, judge, lacking
from tests.cases.running import ROOT, Ran, libraries_of, run_case

_OWN = Path(__file__).parent / "own"
_LIMIT_S = 600.0
_WIDEST = 160


@dataclass(frozen=True)
class Row:
    """A case, and what came of it."""

    case: str
    verdict: Verdict
    seconds: float
    output: str

    def as_json(self) -> dict[str, object]:
        """Give the row as an object of JSON."""
        said = {"case": self.case, "verdict": self.verdict.word, "seconds": round(self.seconds, 1), "line": self.verdict.line}
        return said | {"output": self.output}


def try_case(case: Path, libraries: Sequence[Path], limit_s: float) -> Row:
    """Run a case in a temporary place, and judge it."""
    expected = expectations_of(case)
    beside = [case.parent, *libraries]
    missing = tuple(name for name in libraries_of(case) if not any((folder / name).is_dir() for folder in beside))
    if expected is not None and (name := lacking(expected, missing)) is not None:
        return Row(case.name, Verdict("skipped", f"needs {name}, which is not installed"), 0.0, "")
    with tempfile.TemporaryDirectory(prefix="coppice-case-") as place:
        ran: Ran = run_case(case, Path(place), libraries=libraries, limit_s=_limit(expected, limit_s))
    return Row(case.name, judge(ran, expected), ran.seconds, ran.output)


def _limit(expected: Expectations | None, limit_s: float) -> float:
    return limit_s if expected is None or expected.limit_s is None else expected.limit_s


def cases_in(folder: Path, only: str = "") -> list[Path]:
    """List the cases of a folder: its folders with a run.sh, or itself."""
    folders = [folder] if (folder / "run.sh").is_file() else sorted(path.parent for path in folder.glob("*/run.sh"))
    return [path.resolve() for path in folders if only in path.name]


def table(rows: Sequence[Row]) -> str:
    """Make the table that is printed."""
    widest = max([len("case"), *(len(row.case) for row in rows)])
    lines = [f"{'case':<{widest}}  verdict  seconds  what decides"]
    for row in rows:
        line = " ".join(row.verdict.line.split())
        shown = line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"
        lines.append(f"{row.case:<{widest}}  {row.verdict.word:<7}  {row.seconds:7.1f}  {shown}")
    counts = {word: sum(row.verdict.word == word for row in rows) for word in ("passed", "failed", "skipped")}
    return "\n".join([*lines, ", ".join(f"{count} {word}" for word, count in counts.items())])


def main(arguments: Sequence[str]) -> int:
    """Run the cases, print the table, and return 1 where one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.cases", description=__doc__)
    parser.add_argument("cases", nargs="?", type=Path, default=_OWN, help="folder of cases, or one case; our own by default")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--json", type=Path, help="file for the rows, with all that each case printed")
    parser.add_argument("--side-by-side", type=int, choices=(1, 2), default=2, help="cases that run at a time")
    parser.add_argument("--limit", type=float, default=_LIMIT_S, help="seconds that a case may take")
    parser.add_argument("--libraries", type=Path, default=ROOT / ".venv" / "case-libraries", help="folder of lib-NAME folders")
    asked = parser.parse_args(arguments)
    found = cases_in(asked.cases, asked.only)
    if not found:
        print(f"{asked.cases} holds no case: a case is a folder with a run.sh", file=sys.stderr)
        return 2
    rows: list[Row] = []
    with ThreadPoolExecutor(asked.side_by_side) as pool:
        for done in as_completed([pool.submit(try_case, case, (asked.libraries,), asked.limit) for case in found]):
            rows.append(row := done.result())
            print(f"{len(rows)}/{len(found)} {row.case}: {row.verdict.word}", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: row.case)
    print(table(rows))
    if asked.json is not None:
        asked.json.write_text(json.dumps([row.as_json() for row in rows], indent=1) + os.linesep, encoding="utf-8")
    return int(any(row.verdict.word == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
