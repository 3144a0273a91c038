"""Output of the commands: results on stdout, everything else on stderr."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import IntEnum
from http import HTTPStatus
from typing import NoReturn, assert_never

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from coppice.connection import KEY_VARIABLE
from coppice.errors import AnswerUnreadable, ApiError, BadArgument, CoppiceError, ServiceUnreachable
from coppice.pictures import frontier_picture
from pruning_core.report.also_words import set_words
from pruning_core.report.engine_words import engine_words
from pruning_core.report.latency_words import interval_of_speedup
from pruning_core.report.ledger_words import ledger_sentence
from pruning_core.report.quality import FloorReport
from pruning_core.report.quality_words import difference_words, floor_words, precision_words
from pruning_core.report.report import Report
from pruning_core.spec.messages import message_of, without_consequences
from pruning_core.spec.method import METHODS
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import TARGET_METRICS

out = Console()
err = Console(stderr=True)


_WIDEST = 240
_MOST_SAID = 30
_WITHOUT_SUBJECT = ("must ", "is ", "may ")
_ELSEWHERE = "coppice serve starts one on this host; --url or COPPICE_URL names another"
# Categories of Unicode with the signs that move the cursor, colour, or turn the direction of text around.
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_TAGS = frozenset({*TARGET_METRICS, *METHODS})
_OPTION_FOR = {
    "model": ": give --model DIR_OR_ID",
    "task": ": give --task, e.g. glue/sst2",
}


# Where a field of the spec is for the user, and a sentence about it.
Worded = Callable[[str, str], str]


def joined(name: str, message: str) -> str:
    """Put a name in front of a sentence about it, which may lack a subject, or have it already."""
    if not name or message.startswith(name):
        return message
    return f"{name}{' ' if message.startswith(_WITHOUT_SUBJECT) else ': '}{message}"


def _as_it_is(field: str, message: str) -> str:
    return joined(field, message)


class ExitCode(IntEnum):
    """Exit codes of the commands, on which scripts can rely."""

    OK = 0
    JOB_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    CONDITION_HOLDS = 4
    FAULT = 70

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
            case ExitCode.FAULT:
                return "a fault of Coppice's own"
            case _:
                assert_never(self)


EXIT_CODES = f"Exit codes: {', '.join(f'{code:d} {code.meaning}' for code in ExitCode)}."


def fail(message: str, code: ExitCode) -> NoReturn:
    """Print one sentence about what is wrong, and exit."""
    err.print(f"[bold red]error[/]: {escaped(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def fail_all(messages: Iterable[str], code: ExitCode) -> NoReturn:
    """Print all that is wrong, one sentence a line, and exit."""
    found = list(dict.fromkeys(messages))
    if len(found) == 1:
        fail(found[0], code)
    lines = "".join(f"\n  - {message}" for message in found[:_MOST_SAID])
    more = f"\n  and {len(found) - _MOST_SAID} more" if len(found) > _MOST_SAID else ""
    fail(f"{len(found)} things are wrong:{lines}{more}", code)


def note(message: str) -> None:
    """Print on stderr what people may not expect."""
    err.print(f"[yellow]note[/]: {escaped(message)}", highlight=False, soft_wrap=True)


@contextmanager
def explained(worded: Worded = _as_it_is) -> Generator[None]:
    """Turn a client error or a refused spec into sentences and an exit code.

    Args:
        worded: Function that says where a field of the spec is for the user, and speaks of the user's own options.
    """
    try:
        yield
    except ValidationError as error:
        fail_all(sentences(error, worded), ExitCode.BAD_INPUT)
    except BadArgument as error:
        fail(str(error), ExitCode.BAD_INPUT)
    except AnswerUnreadable as error:
        fail(f"{error} {_ELSEWHERE}", ExitCode.UNREACHABLE)
    except ServiceUnreachable as error:
        fail(f"{error} {_ELSEWHERE}", ExitCode.UNREACHABLE)
    except ApiError as error:
        unreachable = error.status >= 500
        fail_all(_of_the_service(error, worded), ExitCode.UNREACHABLE if unreachable else ExitCode.BAD_INPUT)
    except CoppiceError as error:
        fail(str(error), ExitCode.JOB_FAILED)


def _of_the_service(error: ApiError, worded: Worded) -> list[str]:
    """Return what the service says, in the command line's own words."""
    if error.status == HTTPStatus.UNAUTHORIZED:
        return [_of_the_key(error)]
    pointed = [(pointer, message) for pointer, message in error.errors if pointer.startswith("/")]
    if not pointed or len(pointed) < len(error.errors):
        return [f"{worded('', error.detail)} ({error.code})"]
    return [f"{worded(pointer[1:].replace('/', '.'), _bare(pointer, message))} ({error.code})" for pointer, message in pointed]


def _bare(pointer: str, message: str) -> str:
    """Return a sentence without the name of its field, in whose place the option comes."""
    names = [part for part in pointer.split("/") if part and not part.isdigit()]
    rest = message.removeprefix(f"{names[-1]} ") if names else message
    return rest if rest.startswith(_WITHOUT_SUBJECT) else message


def _of_the_key(error: ApiError) -> str:
    """Say which key was shown, or how one is given: the service cannot know."""
    if "show an API key" in error.detail and "Bearer" in error.detail:
        how = f"export {KEY_VARIABLE}=cpk_..., or give --api-key; whoever runs the service makes one by coppice keys create"
        return f"the service wants an API key, and none was given: {how} ({error.code})"
    return f"the service does not take the key of --api-key or {KEY_VARIABLE}: {error.detail} ({error.code})"


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
    if out.is_terminal:
        out.print(table, crop=False)
    else:  # a console as wide as that: in one of 80 columns, as a pipe has by default, no table is wider
        Console(width=_WIDEST).print(table, crop=False)


def show_rows(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    """Print rows: as a table where each fits into a line, else each row in lines of its own, so that no id is broken.

    Args:
        headings: Names of the columns. The first is what people copy, the second what they look for.
        rows: The cells.
    """
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    if not out.is_terminal or table.__rich_measure__(out, out.options.update(width=_WIDEST)).maximum <= out.width:
        show_table(table)
        return
    for first, second, *others in rows:
        out.print(Text.assemble(first, "  ", second), soft_wrap=True)
        for heading, cell in zip(headings[2:], others, strict=True):
            if cell.plain:
                named = Text.assemble((f"{heading}: " if heading else "", "dim"), cell)
                out.print(Padding(named, (0, 0, 0, 2)))


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
        escaped(f"{quality.label}{precision_words(quality)}"),
        f"{quality.dense:.4f}",
        f"{quality.pruned:.4f}",
        f"{quality.pruned - quality.dense:+.4f}",
    )
    for name, value in quality.details.items():
        table.add_row(escaped(name.replace("_", " ")), "", f"{value:,.0f}" if name.endswith("_tokens") else f"{value:.4f}", "")
    if report.onnx is not None and report.onnx.latency_ms is not None:
        table.add_row("latency of the ONNX graph", "", f"{report.onnx.latency_ms:.1f} ms", "")
    for row in engine_words(report.engines):
        table.add_row(escaped(row.engine), "", escaped(row.speed or "-"), escaped(row.found.partition(":")[0]))
    if report.training is not None:
        name = f"loss on held-out rows ({report.training.steps} steps of training)"
        table.add_row(name, f"{report.training.held_out_start:.4f}", f"{report.training.held_out_best:.4f}", "")
    if (healing := report.healing) is not None:
        for own in healing.held_out:
            name = f"divergence from dense, {own.kind}, held out ({healing.steps} steps of healing)"
            table.add_row(escaped(name), f"{own.start:.4f}", f"{own.best:.4f}", f"{-100 * own.gained:+.1f}%")
    if report.quality_floor is not None:
        table.add_row("quality floor", "", f"{report.quality_floor.required:.4f}", "")
    return table


def frontier_table(report: Report, width: int) -> Table:
    """Return the table of the checkpoints of a job with several budgets: the columns that have room, the first ones first.

    Args:
        report: A report with a frontier.
        width: Columns of the terminal.
    """
    quality_name = escaped(report.quality.label)
    wanted = ("target", quality_name, "faster", "folder", "change", "parameters", "achieved")
    rows = [
        {
            "target": point.target.asked,
            quality_name: f"{point.quality.pruned:.4f}",
            "faster": f"{point.latency_ms.speedup:.2f}x",
            "folder": escaped(point.path),
            "change": f"{point.quality.pruned - point.quality.dense:+.4f}",
            "parameters": f"{point.parameters.pruned / 1e6:.1f} M",
            "achieved": f"{point.target.achieved:.4f}",
        }
        for point in report.frontier
    ]
    shown, taken = list[str](), 1
    for name in wanted:
        taken += 3 + max(len(name), *(len(row[name]) for row in rows))
        if shown and taken > width:
            break
        shown.append(name)
    table = Table(title="Frontier")
    for name in (
        own for own in ("target", "achieved", quality_name, "change", "faster", "parameters", "folder") if own in shown
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[column.header] for column in table.columns if isinstance(column.header, str)))
    return table


def show(report: Report) -> None:
    """Print a report for people: dense against pruned, the frontier where there is one, and the run's warnings."""
    out.print(report_table(report))
    if said := interval_of_speedup(report.latency_ms):
        out.print(escaped(f"speed-up: {said}"), highlight=False, soft_wrap=True)
    if said := difference_words(report.quality):
        words = f"{report.quality.metric} on {report.quality.samples:,} rows: {said}"
        out.print(escaped(words), highlight=False, soft_wrap=True)
    for own in set_words(report.also):
        said = f"{own.name} ({own.measure}): {own.dense} dense, {own.pruned} pruned; {own.said}"
        out.print(escaped(said), highlight=False, soft_wrap=True)
    if said := ledger_sentence(report.ledger):
        out.print(escaped(f"ledger: {said}"), highlight=False, soft_wrap=True)
    if report.quality_floor is not None:
        out.print(escaped(_floor_line(report.quality_floor, report.quality.metric)), highlight=False, soft_wrap=True)
    if report.frontier:
        out.print(frontier_table(report, out.width))
        for line in frontier_picture(report, out.width, ascii_only=out.options.ascii_only):
            out.print(line, soft_wrap=True)
    if report.vocabulary is not None:
        out.print(escaped(f"vocabulary: {report.vocabulary.words}"), highlight=False, soft_wrap=True)
    if report.statistics is not None and (said := report.statistics.words):
        out.print(escaped(said), highlight=False, soft_wrap=True)
    if (proof := report.acceptance) is not None:
        loader = "transformers alone" if proof.loader == "stock" else "transformers and the bundle's own loader"
        differ = f"outputs differ by {proof.max_difference:.1e} of the largest on {proof.samples} held-out inputs"
        out.print(
            f"proof: a fresh process without Coppice loaded the files by {loader}; {differ}", highlight=False, soft_wrap=True
        )
    for warning in report.warnings:
        out.print(f"[yellow]note[/]: {escaped(warning)}", highlight=False, soft_wrap=True)


def _floor_line(floor: FloorReport, metric: str) -> str:
    bound = "at most" if floor.lower_is_better else "at least"
    line = f"quality floor: {metric} {bound} {floor.required:.4f}, {'held' if floor.held else 'missed'}"
    return f"{line}; {said}" if (said := floor_words(floor)) else line


def sentences(error: ValidationError, worded: Worded = _as_it_is, model: type[BaseModel] = PruneSpec) -> list[str]:
    """Return what is wrong with a spec, a sentence for each error.

    Args:
        error: What the validation found.
        worded: Function that says where a field of the spec is for the user, and speaks of the user's own options.
        model: What was validated.
    """
    found: list[str] = []
    for item in without_consequences(error.errors()):
        # The tag of a union repeats what its fields say: the user wrote target.keep where pydantic says target.macs.keep.
        last = len(item["loc"]) - 1
        field = ".".join(str(part) for i, part in enumerate(item["loc"]) if i == last or part not in _TAGS)
        message = message_of(item, model, item["loc"])
        if item["type"] == "missing":
            message += _OPTION_FOR.get(field, "")
        found.append(worded(field, message))
    return list(dict.fromkeys(found))


def plain(text: object) -> str:
    """Return text of strangers, such as names of models and labels, without what a terminal would obey."""
    return "".join("?" if unicodedata.category(sign) in _OBEYED and sign not in "\n\t" else sign for sign in str(text))


def escaped(text: object) -> str:
    """Return text of strangers for a place where rich reads markup."""
    return escape(plain(text))
