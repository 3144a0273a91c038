"""Bars of a frontier in terminals of all kinds."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coppice.pictures import _bar, frontier_picture
from pruning_core.report.report import FrontierPoint, Report
from tests.unit.app.sample import REPORT


def a_report_with_a_frontier() -> Report:
    outcome = {name: REPORT[name] for name in REPORT if name in FrontierPoint.model_fields}
    points = [outcome | {"path": path} for path in (".", "macs-0.5")]
    return Report.model_validate(REPORT | {"frontier": points})


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_are_as_wide_as_the_terminal_at_most(width):
    for line in frontier_picture(a_report_with_a_frontier(), width, ascii_only=False):
        assert line.cell_len <= width


def test_a_terminal_without_unicode_and_colours_gets_signs_that_it_has():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=60, no_color=True)
    assert console.options.ascii_only
    for line in frontier_picture(a_report_with_a_frontier(), 60, ascii_only=console.options.ascii_only):
        console.print(line, soft_wrap=True)
    stream.flush()
    assert b"#" in stream.buffer.getvalue()


def test_bars_are_in_proportion():
    longest = 8
    assert _bar(1, 1, longest, ascii_only=True) == "########"
    assert _bar(0.5, 1, longest, ascii_only=True) == "####    "
    assert _bar(0.5 + 1 / 64, 1, longest, ascii_only=False) == "████▏   "
    for nothing in (0.0, -0.2, float("nan")):
        assert not _bar(nothing, 1, longest, ascii_only=False).strip()
