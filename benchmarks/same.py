"""``make same BASE=COMMIT``: run a commit and this tree on the same cells, and compare every file that they write.

A cell is one job on a small model. The cells cover three architectures, every method, both tiers, layouts, formats, recoveries,
solvers and paged weights. Seeds are fixed, and all runs use one thread of one processor, so a change without effect gives the
same bytes. Bundles of the commit are kept in benchmarks/results/same-cache. Prints a table and the list of what is not
compared, and writes benchmarks/results/same.json. The exit code is 1 if something differs that is not listed as expected (in
`benchmarks.same_cells`), and 2 if a tree cannot be run.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.same_cells import CELLS, EXPECTED, LEFT_OUT, TEXTS, Cell
from benchmarks.same_normal import RULES, Form, normal_form
from benchmarks.same_trees import (
    ROOT,
    Kept,
    Record,
    TreeFailed,
    checked_out,
    inputs_in,
    key_of,
    machine,
    resolve,
    run_cells,
    short,
)

_RESULTS = ROOT / "benchmarks" / "results"
_SHOWN = 6


@dataclass(frozen=True)
class Difference:
    """A file that differs.

    Attributes:
        file: Path in the bundle, or ``exit`` for the exit code.
        verdict: Whether the difference is expected, and why.
        detail: Lines on what is different.
        fails: Whether the difference fails the run.
    """

    file: str
    verdict: str
    detail: list[str]
    fails: bool


@dataclass(frozen=True)
class Compared:
    """Comparison of one cell: its files, processor seconds in both trees, exit code and differences."""

    cell: str
    files: int
    equal: int
    base_seconds: float
    new_seconds: float
    exit: int
    differences: list[Difference] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """Whether any difference fails the run."""
        return any(own.fails for own in self.differences)


def compare(cell: Cell, records: tuple[Record, Record], bundles: tuple[Path, Path], texts: Mapping[str, str]) -> Compared:
    """Compare the bundles and exit codes of two trees for one cell.

    Args:
        cell: The cell.
        records: Records of the base and of the new tree.
        bundles: Bundles of the base and of the new tree.
        texts: Patterns of files whose text may change, with reasons.
    """
    found: list[Difference] = []
    base, new = records
    if base.exit != cell.exit:
        found.append(Difference("exit", f"BROKEN: the base ends with {base.exit}, not {cell.exit}", [base.said], fails=True))
    if (base.exit, base.said) != (new.exit, new.said):
        told = [f"- exit code {base.exit} {base.said}", f"+ exit code {new.exit} {new.said}"]
        found.append(_judged(cell, "exit", told, {}))
    names = [{path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()} for bundle in bundles]
    everything = sorted(names[0] | names[1])
    for name in everything:
        if missing := [who for who, own in zip(("base", "new"), names, strict=True) if name not in own]:
            found.append(_judged(cell, name, [f"not written by {missing[0]}"], {}))
            continue
        forms = [normal_form(bundle, bundle / name, record.places) for bundle, record in zip(bundles, records, strict=True)]
        if forms[0].digest != forms[1].digest:
            found.append(_judged(cell, name, _detail(name, bundles, forms), texts))
    equal = len(everything) - sum(own.file in everything for own in found)
    return Compared(cell.name, len(everything), equal, base.seconds, new.seconds, new.exit, found)


def _judged(cell: Cell, name: str, detail: list[str], texts: Mapping[str, str]) -> Difference:
    """Make the difference of a file; its verdict depends on the tables of expected differences and changed texts."""
    both = f"{cell.name}:{name}"
    for pattern, reason in EXPECTED.items():
        if fnmatch(cell.name, pattern) or fnmatch(both, pattern):
            return Difference(name, f"expected: {reason}", detail, fails=False)
    for pattern, reason in texts.items():
        if fnmatch(name, pattern):
            return Difference(name, f"text changed: {reason}", detail, fails=False)
    return Difference(name, "DIFFERS", detail, fails=True)


def _detail(name: str, bundles: tuple[Path, Path], forms: Sequence[Form]) -> list[str]:
    """Return lines on what is different: tensors and by how much, paths and values of JSON, or lines of text."""
    first, second = forms
    if name.endswith(".safetensors"):
        return _tensors(*(bundle / name for bundle in bundles))
    if first.values is not None and second.values is not None:
        flat = [dict(_flat(form.values)) for form in forms]
        paths = [path for path in {**flat[0], **flat[1]} if flat[0].get(path, "absent") != flat[1].get(path, "absent")]
        if paths:
            return [f"{path}: {flat[0].get(path, 'absent')!r} -> {flat[1].get(path, 'absent')!r}" for path in paths]
    if first.text is None or second.text is None:
        return ["other bytes"]
    lines = difflib.unified_diff(first.text.splitlines(), second.text.splitlines(), n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))] or ["other line endings"]


def _tensors(base: Path, new: Path) -> list[str]:
    from safetensors.torch import load_file

    first, second = load_file(base), load_file(new)
    found = [f"{name}: only in {'base' if name in first else 'new'}" for name in sorted(first.keys() ^ second.keys())]
    for name in sorted(first.keys() & second.keys()):
        one, other = first[name], second[name]
        if one.shape != other.shape or one.dtype != other.dtype:
            found.append(f"{name}: {tuple(one.shape)} {one.dtype} -> {tuple(other.shape)} {other.dtype}")
        elif one.numel() and one.view(-1).ne(other.view(-1)).any():
            apart = (one.double() - other.double()).abs().max() / one.double().abs().max().clamp_min(1e-30)
            found.append(f"{name}: differs by {float(apart):.1e} of the largest")
    return found or ["the same tensors, other bytes of the header"]


def _flat(values: Any, path: str = "") -> list[tuple[str, Any]]:
    """Return the paths and values of a JSON document."""
    if not isinstance(values, dict | list) or not values:
        return [(path, values)]
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return [found for key, own in items for found in _flat(own, f"{path}.{key}" if path else str(key))]


def fill(who: str, tree: Path, cells: Sequence[Cell], inputs: tuple[Path, str], kept: Kept, console: Console) -> float:
    """Run cells in a tree, and print a line for each. Return the elapsed seconds."""
    began, done = time.monotonic(), 0

    def tell(cell: Cell, record: Record) -> None:
        nonlocal done
        done += 1
        console.print(f"{who:4} {done:3} of {len(cells)}  {record.seconds:5.1f} CPU s  exit {record.exit}  {cell.name}")

    if cells:
        run_cells(tree, cells, *inputs, kept, tell)
    return time.monotonic() - began


def show(rows: Sequence[Compared], title: str, console: Console) -> None:
    table = Table(title=title)
    for heading in ("cell", "exit", "files", "equal", "base, CPU s", "new, CPU s", "different"):
        table.add_column(heading, justify="left" if heading in ("cell", "different") else "right", no_wrap=heading == "cell")
    for row in rows:
        different = ", ".join(f"{own.file} ({own.verdict})" for own in row.differences)
        style = "red" if row.fails else "yellow" if row.differences else None
        counts = (str(own) for own in (row.exit, row.files, row.equal, row.base_seconds, row.new_seconds))
        table.add_row(row.cell, *counts, different, style=style)
    console.print(table)
    for row in rows:
        for own in row.differences:
            console.print(f"{row.cell} {own.file}: {own.verdict}", markup=False)
            for line in own.detail[:_SHOWN]:
                console.print(f"    {line[:220]}", markup=False, highlight=False)
            if len(own.detail) > _SHOWN:
                console.print(f"    and {len(own.detail) - _SHOWN} more")
    console.print("Not compared as it stands:")
    for file, rule in RULES.items():
        console.print(f"  {file}: {rule}", markup=False, highlight=False)
    console.print("Left out:")
    for what, reason in LEFT_OUT.items():
        console.print(f"  {what}: {reason}", markup=False, highlight=False)


def measure(options: argparse.Namespace, console: Console) -> int:
    commit = resolve(options.base)
    chosen = [cell for cell in CELLS if not options.only or any(fnmatch(cell.name, f"*{own}*") for own in options.only)]
    if not chosen:
        raise TreeFailed(f"no cell is called {' or '.join(options.only)}; --list names them")
    options.cache.mkdir(parents=True, exist_ok=True)
    inputs = inputs_in(options.cache)
    cache = Kept(options.cache / f"{commit[:12]}-{short(machine())}")
    keys = {cell.name: key_of(cell, inputs[1]) for cell in chosen}
    missing = [cell for cell in chosen if options.again or cache.read(cell, keys[cell.name]) is None]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coppice-same-")))
        base_s = 0.0
        if missing:
            tree = stack.enter_context(checked_out(commit, scratch / "base"))
            base_s = fill("base", tree, missing, inputs, cache, console)
        tree = stack.enter_context(checked_out(commit, scratch / "twice")) if options.twice else options.new.resolve()
        new = Kept(options.keep or scratch / "new-bundles")
        new_s = fill("new", tree, chosen, inputs, new, console)
        texts = {**TEXTS, **dict.fromkeys(options.allow, "--allow")}
        rows: list[Compared] = []
        for cell in chosen:
            records = cache.get(cell, keys[cell.name]), new.get(cell, keys[cell.name])
            rows.append(compare(cell, records, (cache.bundle(cell), new.bundle(cell)), texts))
    which = f"{commit[:7]} again" if options.twice else str(tree)
    show(rows, f"{commit[:7]} against {which}, float32 and bfloat16 on one thread", console)
    failing = [row.cell for row in rows if row.fails]
    files, equal = sum(row.files for row in rows), sum(row.equal for row in rows)
    console.print(
        f"{len(rows)} cells, {equal} of {files} files equal; {len(failing)} cells differ without being expected to; base "
        f"{base_s:.0f} s ({len(chosen) - len(missing)} cells kept from before), new {new_s:.0f} s"
    )
    _RESULTS.mkdir(parents=True, exist_ok=True)
    found = {"base": commit, "new": which, "machine": json.loads(machine()), "seconds": {"base": base_s, "new": new_s}}
    said = {"expected": EXPECTED, "texts": texts, "rules": RULES, "left_out": LEFT_OUT, "failing": failing}
    text = json.dumps({**found, **said, "cells": [asdict(row) for row in rows]}, indent=1)
    (_RESULTS / "same.json").write_text(text + "\n", encoding="utf-8")
    return 1 if failing else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", nargs="?", default="HEAD", help="commit to compare with")
    parser.add_argument("--new", type=Path, default=ROOT, help="tree to compare, as it is on disk; default: this one")
    parser.add_argument("--only", nargs="+", default=[], help="parts of cells' names, with shell patterns")
    parser.add_argument(
        "--allow", nargs="+", default=[], help="patterns of files whose text may change, e.g. '*modeling_coppice.py'"
    )
    parser.add_argument("--twice", action="store_true", help="compare the commit with itself: shows what is not deterministic")
    parser.add_argument("--again", action="store_true", help="run the commit even if its bundles are kept")
    parser.add_argument("--keep", type=Path, default=None, help="folder to leave the new tree's bundles in")
    parser.add_argument("--cache", type=Path, default=_RESULTS / "same-cache", help="where the commit's bundles are kept")
    parser.add_argument("--list", action="store_true", help="name the cells and leave")
    options = parser.parse_args()
    if options.list:
        print("\n".join(cell.name for cell in CELLS))
        return
    try:
        sys.exit(measure(options, Console(width=160)))
    except TreeFailed as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
