"""Output of the commands: results on stdout, everything else on stderr."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn, assert_never

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from coppice.errors import ApiError, CoppiceError, ServiceUnreachable
from pruning_core.report.report import Report
from pruning_core.spec.messages import message_of
from pruning_core.spec.method import METHODS
from pruning_core.spec.targets import TARGET_METRICS

out = Console()
err = Console(stderr=True)


class ExitCode(IntEnum):
    """Exit codes of the commands, on which scripts can rely."""

    OK = 0
    JOB_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    CONDITION_HOLDS = 4

    @property
    def meaning(self) -> str:
        """What a command that ends with it says."""
        match self:
            case ExitCode.OK:
                return "success"
            case ExitCode.JOB_FAILED:
                return "the job failed or was cancelled"
            case ExitCode.BAD_INPUT:
                return "bad input or a refused request"
            case ExitCode.UNREACHABLE:
                return "the service cannot be reached"
            case ExitCode.CONDITION_HOLDS:
                return "a condition of --fail-if holds"
            case _:
                assert_never(self)


EXIT_CODES = f"Exit codes: {', '.join(f'{code:d} {code.meaning}' for code in ExitCode)}."


_WIDEST = 240
# Categories of Unicode with the signs that move the cursor, colour, or turn the direction of text around.
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_TAGS = frozenset({*TARGET_METRICS, *METHODS})
_OPTION_FOR = {
    "model": ": give --model DIR_OR_ID",
    "task": ": give --task, e.g. glue/sst2",
}


def fail(message: str, code: ExitCode) -> NoReturn:
    """Print one sentence about what is wrong, and exit."""
    err.print(f"[bold red]error[/]: {escaped(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def note(message: str) -> None:
    """Print on stderr what people may not expect."""
    err.print(f"[yellow]note[/]: {escaped(message)}", highlight=False, soft_wrap=True)


@contextmanager
def explained() -> Generator[None]:
    """Turn a client error or a refused spec into one sentence and an exit code."""
    try:
        yield
    except ValidationError as error:
        fail(first_sentences(error), ExitCode.BAD_INPUT)
    except ServiceUnreachable as error:
        fail(str(error), ExitCode.UNREACHABLE)
    except ApiError as error:
        unreachable = error.status >= 500
        fail(str(error), ExitCode.UNREACHABLE if unreachable else ExitCode.BAD_INPUT)
    except CoppiceError as error:
        fail(str(error), ExitCode.JOB_FAILED)


@contextmanager
def progress(label: str) -> Generator[Callable[[str, float], None]]:
    """Show progress on stderr: a bar on a terminal, elsewhere one line for each stage.

    Args:
        label: Name of the stage that is shown first.

    Yields:
        A function that takes the current stage and the fraction of the whole that is done.
    """
    if not err.is_terminal:
        yield _StageLines().tell
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err) as bar:
        line = bar.add_task(label, total=1.0)
        yield lambda stage, fraction: bar.update(line, completed=fraction, description=stage)


class _StageLines:
    """Progress for a log: one line when a stage begins."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._stage = ""

    def tell(self, stage: str, fraction: float) -> None:
        """Print a line if the stage has changed."""
        if stage != self._stage:
            self._stage = stage
            err.print(f"{time.monotonic() - self._start:7.1f} s {fraction:5.0%}  {stage}", highlight=False)


def show_table(table: Table) -> None:
    """Print a table, as wide as the terminal. In a pipe it may be wider, and nothing is cut off."""
    out.print(table, width=None if out.is_terminal else _WIDEST, crop=False)


def report_table(report: Report) -> Table:
    """Return the table of a report: dense against pruned."""
    table = Table(title=escaped(f"{report.model.rstrip('/').rpartition('/')[2]}: {report.method}, {report.task}"))
    table.add_column("")
    for heading in ("dense", "pruned", "change"):
        table.add_column(heading, justify="right")
    latency, quality = report.latency_ms, report.quality
    for name, pair, scale, unit in (
        ("parameters", report.parameters, 1e6, "M"),
        ("MACs of the blocks", report.macs, 1e6, "M"),
        ("weights", report.bytes, 1e6, "MB"),
    ):
        change = f"{pair.pruned / pair.dense - 1:+.1%}"
        table.add_row(name, f"{pair.dense / scale:.1f} {unit}", f"{pair.pruned / scale:.1f} {unit}", change)
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    blocks = ", sum of its blocks" if latency.measured == "blocks" else ""
    shape = f"{latency.batch} x {latency.length} tokens, {threads}, {latency.device}, {latency.dtype}{blocks}"
    table.add_row(
        escaped(f"latency ({shape})"), f"{latency.dense:.1f} ms", f"{latency.pruned:.1f} ms", f"{latency.speedup:.2f}x as fast"
    )
    table.add_row(
        escaped(quality.label), f"{quality.dense:.4f}", f"{quality.pruned:.4f}", f"{quality.pruned - quality.dense:+.4f}"
    )
    for name, value in quality.details.items():
        table.add_row(escaped(name.replace("_", " ")), "", f"{value:,.0f}" if name.endswith("_tokens") else f"{value:.4f}", "")
    if report.onnx is not None and report.onnx.latency_ms is not None:
        table.add_row("latency of the ONNX graph", "", f"{report.onnx.latency_ms:.1f} ms", "")
    if report.training is not None:
        name = f"loss on held-out rows ({report.training.steps} steps of training)"
        table.add_row(name, f"{report.training.held_out_start:.4f}", f"{report.training.held_out_best:.4f}", "")
    if report.quality_floor is not None:
        table.add_row("quality floor", "", f"{report.quality_floor.required:.4f}", "")
    return table


def frontier_table(report: Report) -> Table:
    """Return the table of the checkpoints of a job with several budgets."""
    table = Table(title="Frontier")
    for heading in ("target", "achieved", escaped(report.quality.label), "change", "faster", "parameters", "folder"):
        table.add_column(heading, justify="right")
    for point in report.frontier:
        quality, target = point.quality, point.target
        table.add_row(
            f"{target.metric} {target.requested:g}",
            f"{target.achieved:.4f}",
            f"{quality.pruned:.4f}",
            f"{quality.pruned - quality.dense:+.4f}",
            f"{point.latency_ms.speedup:.2f}x",
            f"{point.parameters.pruned / 1e6:.1f} M",
            escaped(point.path),
        )
    return table


def show(report: Report) -> None:
    """Print a report for people: dense against pruned, the frontier where there is one, and the run's warnings."""
    out.print(report_table(report))
    if report.frontier:
        out.print(frontier_table(report))
    for warning in report.warnings:
        out.print(f"[yellow]note[/]: {escaped(warning)}", highlight=False, soft_wrap=True)


def first_sentences(error: ValidationError, option_for: Callable[[str], str | None] = lambda _field: None) -> str:
    """Return what is wrong with a spec, in at most three sentences.

    Args:
        error: What the validation found.
        option_for: Returns the option that set a field, or None. A sentence names the option where there is one.
    """
    sentences: list[str] = []
    for item in error.errors():
        # The tag of a union repeats what its fields say: the user wrote target.keep where pydantic says target.macs.keep.
        last = len(item["loc"]) - 1
        field = ".".join(str(part) for i, part in enumerate(item["loc"]) if i == last or part not in _TAGS)
        message = message_of(item)
        if item["type"] == "missing":
            message += _OPTION_FOR.get(field, "")
        name = option_for(field) or field
        glue = " " if message.startswith(("must ", "is ")) else ": "
        sentences.append(f"{name}{glue}{message}" if name else message)
    return "; ".join(dict.fromkeys(sentences[:3]))


def plain(text: object) -> str:
    """Return text of strangers, such as names of models and labels, without what a terminal would obey."""
    return "".join("?" if unicodedata.category(sign) in _OBEYED and sign not in "\n\t" else sign for sign in str(text))


def escaped(text: object) -> str:
    """Return text of strangers for a place where rich reads markup."""
    return escape(plain(text))
