"""Bars of a frontier in terminals of all kinds."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from coppice.console import frontier_table
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


def test_times_are_shares_of_what_the_dense_model_took_in_the_same_turns():
    report = a_report_with_a_frontier()
    slow = report.frontier[1].latency_ms.but(dense=8.0, pruned=4.0)  # the machine was busy meanwhile
    lines = frontier_picture(
        report.but(frontier=(report.frontier[0], report.frontier[1].but(latency_ms=slow))), 80, ascii_only=True
    )
    shares = [line.plain.split("%")[0].split()[-1] for line in lines[1:]]
    assert shares == ["100", "50", "50"]


def test_a_terminal_without_unicode_and_colours_gets_signs_that_it_has():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=60, no_color=True)
    assert console.options.ascii_only
    for line in frontier_picture(a_report_with_a_frontier(), 60, ascii_only=console.options.ascii_only):
        console.print(line, soft_wrap=True)
    stream.flush()
    assert b"#" in stream.buffer.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_of_a_frontier_leaves_columns_out_rather_than_cut_figures(width):
    report = a_report_with_a_frontier()
    stream = io.StringIO()
    Console(file=stream, width=width).print(frontier_table(report, width))
    printed = stream.getvalue()
    assert "…" not in printed
    assert f"{report.quality.pruned:.4f}" in printed
    assert ("achieved" in printed) == (width > 80)


def test_a_pipe_without_unicode_gets_question_marks_and_no_error():
    code = "from coppice import console, faults\nwith faults.no_traceback():\n    console.out.print(chr(0x6A21) + chr(0x578B))"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, b"??"), done.stderr


def test_bars_are_in_proportion():
    longest = 8
    assert _bar(1, 1, longest, ascii_only=True) == "########"
    assert _bar(0.5, 1, longest, ascii_only=True) == "####    "
    assert _bar(0.5 + 1 / 64, 1, longest, ascii_only=False) == "████▏   "
    for nothing in (0.0, -0.2, float("nan")):
        assert not _bar(nothing, 1, longest, ascii_only=False).strip()
