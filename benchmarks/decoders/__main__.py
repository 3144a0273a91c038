"""``make bench-decoders``: pruning that holds on a real language model, beside its peers.

SmolLM2-135M-Instruct is made of the package that carries it. Calibration and validation are Debian's administrator's handbook,
split by files; RFCs and manual pages stand beside it, which nothing is calibrated on. ``--final`` shows a third text and makes
a second decoder, on which no choice was made. Jobs of the core, peers written from their papers (as they come, and with the
core's repair) and peers that are packages keep the same shares of the multiply-accumulates, or the same patterns; all calibrate
on the same tokens: those that a job of the core draws by default.

Each cell is kept in ``--out`` under the digest of what it depends on: an interrupted run goes on where it was. Prints a table
and, last, one JSON object, which goes to benchmarks/results/decoders.json, too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.decoders.cells import Maker, Subject
from benchmarks.decoders.judging import Numbers
from benchmarks.decoders.subjects import small_subject, smollm2_subject
from benchmarks.decoders.tables import rows_of, table_of
from benchmarks.decoders.texts import TEXTS
from benchmarks.decoders.ways import SETTINGS, STRUCTURED, ZEROING, Dense, ways_at
from benchmarks.models import SHARED

FINAL = {text.name for text in TEXTS if text.final}
RESULTS = Path(__file__).resolve().parents[1] / "results"


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield setting, way and seed of the cells that are asked for, in the order in which they are made."""
    for setting in options.keeps:
        for name in ways_at(setting):
            if options.ways is None or name in options.ways:
                yield from ((setting, name, seed) for seed in options.seeds)


def measure(subject: Subject, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Make the cells of one subject, or take those that are there; return its rows."""
    maker = Maker(subject, options.out, subject.digest)
    dense = maker.make(Dense(), "dense", "1", 0)
    dense["texts"] = {name: own for name, own in dense["texts"].items() if options.final or name not in FINAL}
    cells: dict[tuple[str, str], list[Numbers]] = {}
    lacking: list[Numbers] = []
    for setting, name, seed in wanted(options):
        way = ways_at(setting)[name]
        there = maker.place(way, name, setting, seed)
        older = maker.stale(name, setting, seed) if options.stale else []
        if options.only_table and not there.is_file() and not older:
            continue
        if not there.is_file() and older:
            cell = json.loads(older[0].read_text(encoding="utf-8"))
        else:
            cell = maker.make(way, name, setting, seed)
        if "reason" in cell:
            lacking.append(cell)
            console.print(f"{time.strftime('%H:%M:%S')} {name}, {setting}: {cell['reason']}", highlight=False)
            continue
        cells.setdefault((setting, name), []).append(cell)
        if not options.only_table:
            (row,) = rows_of(dense, {(setting, name): [cell]})
            said = ", ".join(f"{text['text']} {text['of_dense']['value']:.3f}" for text in row["texts"])
            console.print(f"{time.strftime('%H:%M:%S')} {name}, {setting}, seed {seed}: {said}", highlight=False)
    rows = rows_of(dense, cells)
    Console(width=220).print(table_of(subject.name, dense, rows))
    blocks = {name: len(own["lost"]) for name, own in dense["texts"].items()}
    return {"subject": subject.name, "digest": subject.digest, "blocks": blocks, "rows": rows, "lacking": lacking}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "decoders", help="folder for models, texts and cells")
    parser.add_argument("--model", type=Path, default=None, help="folder of SmolLM2-135M-Instruct, if it is converted already")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/, for the small decoder")
    parser.add_argument("--keeps", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), help="shares and patterns")
    parser.add_argument("--ways", nargs="+", default=None, choices=sorted({*STRUCTURED, *ZEROING}), help="all of them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--samples", type=int, default=None, help="calibration samples of all ways; the core's default")
    parser.add_argument("--length", type=int, default=None, help="their tokens; the core's default")
    parser.add_argument("--final", action="store_true", help="the third text and the second decoder, too")
    parser.add_argument("--subjects", nargs="+", default=None, choices=["smollm2", "small"], help="decoders")
    parser.add_argument("--only-table", action="store_true", help="make no cell: the table of those that are there")
    parser.add_argument("--stale", action="store_true", help="take cells of an earlier state of the code, where none is newer")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    given = {"samples": options.samples, "max_length": options.length}
    calibration = {name: value for name, value in given.items() if value is not None}
    names = options.subjects or ("smollm2", *(("small",) if options.final else ()))
    subjects: list[Subject] = []
    if "smollm2" in names:
        subjects.append(smollm2_subject(options.out, options.model, calibration))
    if "small" in names:
        subjects.append(small_subject(options.out, options.shared, calibration, console.print))
    result = json.dumps({"keeps": options.keeps, "subjects": [measure(own, options, console) for own in subjects]})
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "decoders.json").write_text(result + "\n", encoding="utf-8")
    print(result)


if __name__ == "__main__":
    main()
