"""``coppice reproduce``: make a bundle again by its own report, and say whether it is the same."""

from __future__ import annotations

import contextlib
import json as jsonlib
import os
import tempfile
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn, assert_never

import typer
from pydantic import ValidationError

from coppice import console
from coppice.commands import options, places
from coppice.commands.here import cache_folder, computing, importing_core
from coppice.console import ExitCode, fail, fail_all, joined, note, progress
from coppice.pushing.bundle import BundleUnfit, NoBundle, read_bundle
from coppice.reproduction import (
    Circumstance,
    FileComparison,
    TensorDifference,
    circumstances,
    compared,
    digests_in,
    other_differences,
    spec_without_further_evaluations,
)
from pruning_core.errors import PruningError, Rejected, each, together
from pruning_core.report.report import Report
from pruning_core.report.reproduction import ReproductionReport, SourceReport, unlike
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import any_measured

_LARGEST_REPORT = 64 * 2**20
_MOST_TENSORS = 10
_MOST_THREADS = 16  # for each core
_OPTIONS = {"model": "--model", "task.dataset": "--data", "task": "--data", "task.columns": "--data"}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it.

    Attributes:
        files: The weight files, compared.
        others: Files without weights that differ, those that tell of the run left out.
        circumstances: What of machine, versions and threads differs.
        notes: What else may explain a difference.
        threads: CPU threads of the run now.
    """

    files: list[FileComparison]
    others: list[str]
    circumstances: list[Circumstance]
    threads: int
    notes: list[str] = field(default_factory=list[str])

    @property
    def identical(self) -> bool:
        """Whether every weight file is the same to the last bit."""
        return bool(self.files) and all(file.identical for file in self.files)


def reproduce(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    model: Annotated[
        str | None, typer.Option(help="The model that it was made of: a folder or a Hub id, where the report's is not here.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The data that it was made with, where the report's is not here.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the bundle that is made now in; by default none.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default as many as the report says.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Run with another model or other data than the report's.")] = False,
    json: options.Json = False,
) -> None:
    """Make a bundle again by its report, in this process, and compare its weight files.

    Exit codes: 0 identical, 1 the weights differ or the run failed, 2 bad input, another model, other data.

    Example: coppice reproduce ./bundle --model ./minilm-sst2 --data ./sst2
    """
    report, again = _report(bundle)
    spec, notes = _filled_in(again, model, data)
    if out is not None:
        places.require_free(out)
    then = _verified(bundle)
    with _refusals():
        odd = _differing_sources(again, spec)
    if odd and not anyway:
        fail_all([f"{said}; give the one that the bundle was made of, or --anyway" for said in odd], ExitCode.BAD_INPUT)
    for said in (*odd, *notes):
        note(said)
    with contextlib.ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coppice-reproduce-"))) / "bundle"
        made, missed = _run(spec, folder, report.device, threads or _threads_of(again))
        with progress("compare") as show:
            now = digests_in(folder)
            files = compared(bundle, folder, then, now, show)
    assert made.reproduction is not None, "this version writes it"
    result = Result(
        files,
        other_differences(then, now),
        circumstances(report, made),
        made.reproduction.machine.threads,
        [*odd, *notes, *missed, *_of_clocks(spec)],
    )
    _show(result, out, json=json)
    if not result.identical:
        raise typer.Exit(ExitCode.JOB_FAILED)


def _report(bundle: Path) -> tuple[Report, ReproductionReport]:
    """Read the report of a bundle, with what it takes to make it again."""
    path = bundle / "report.json"
    if not path.is_file():
        fail(f"{bundle} is no bundle: it has no report.json", ExitCode.BAD_INPUT)
    if not (bundle / "manifest.json").is_file() and (bundle.resolve().parent / "manifest.json").is_file():
        fail(f"{bundle} is one of several checkpoints of a bundle: give {bundle.resolve().parent}", ExitCode.BAD_INPUT)
    try:
        with path.open("rb") as file:
            report = Report.model_validate_json(file.read(_LARGEST_REPORT))
    except OSError as error:
        fail(f"{path} cannot be read ({error.strerror})", ExitCode.BAD_INPUT)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its JSON"
        fail(f"{path} is damaged, or is of a later version than this one, which does not know {where}", ExitCode.BAD_INPUT)
    if report.reproduction is None:
        version = report.versions.get("coppice", "an earlier version")
        fail(
            f"{bundle} cannot be made again by its report: it was made by Coppice {version}, before reports said how "
            "(`reproduction`). Prune anew with coppice run; the bundle of that can be reproduced",
            ExitCode.BAD_INPUT,
        )
    return report, report.reproduction


def _filled_in(again: ReproductionReport, model: str | None, data: str | None) -> tuple[PruneSpec, list[str]]:
    """Return the spec of a report with the places of this machine, and what was left out of it."""
    fields, left_out = spec_without_further_evaluations(again.spec)
    task = dict(fields.get("task") or {})
    wrong: list[str] = []
    if model is not None:
        fields |= {"model": places.local_model(model), "revision": None}
    elif again.model.kind == "hub":
        fields["revision"] = again.model.commit or fields.get("revision")
    else:
        wrong += _not_here("--model", "model", str(fields.get("model")), again.model)
    if data is not None:
        task["dataset"] = places.local_data(data)
        task.pop("revision", None)
    elif again.data.kind == "folder":
        wrong += _not_here("--data", "data", str(task.get("dataset")), again.data)
    if wrong:
        fail_all(wrong, ExitCode.BAD_INPUT)
    try:
        spec = PruneSpec.model_validate({**fields, "task": task})
    except ValidationError as error:
        fail_all([f"the report's spec: {said}" for said in console.sentences(error)], ExitCode.BAD_INPUT)
    named = " and ".join(f"evaluation.{name}" for name in left_out)
    return spec, [f"{named} was left out: no weight depends on it"] if left_out else []


def _not_here(option: str, what: str, place: str, source: SourceReport) -> list[str]:
    """Say that a folder must be named, where the report has no path, or a path of another machine."""
    if not place.startswith("/"):
        return [f"give {option}: the bundle was made of the {what} {source.name!r}, and its report has no path of it"]
    if not Path(place).exists():
        return [f"give {option}: the bundle was made of the {what} at {place}, where nothing is on this machine"]
    return []


def _verified(bundle: Path) -> dict[str, str]:
    """Return the sha256 of each file, and insist that it is as the manifest says: else no comparison means anything."""
    try:
        with progress("verify") as show:
            return {file.path: file.sha256 for file in read_bundle(bundle, None, show).files}
    except NoBundle as error:
        fail(str(error), ExitCode.BAD_INPUT)
    except BundleUnfit as error:
        fail(f"{bundle} is not the bundle that was made: {error}", ExitCode.BAD_INPUT)


def _differing_sources(again: ReproductionReport, spec: PruneSpec) -> list[str]:
    """Say how model and data differ from those that the bundle was made of."""
    with importing_core():
        from pruning_core.data.digests import rows_digest
        from pruning_core.data.read import read_rows
        from pruning_core.data.table import ROLES
        from pruning_core.files.digests import model_digests
        from pruning_core.files.hub import model_folder
    found: dict[str, dict[str, str]] = {}
    together(
        (
            lambda: found.update(model=model_digests(model_folder(spec.model, spec.revision))),
            lambda: found.update(data={role: rows_digest(read_rows(spec.task, role)) for role in ROLES}),
        )
    )
    said: list[str] = []
    if model := unlike(again.model, found["model"]):
        said.append(f"--model is another model than the bundle was made of: {'; '.join(model[:3])}{_and_more(model)}")
    if data := unlike(again.data, found["data"]):
        said.append(f"--data is other data than the bundle was made with: of its rows, {'; '.join(data)}")
    return said


def _and_more(parts: tuple[str, ...]) -> str:
    return f"; and {len(parts) - 3} more" if len(parts) > 3 else ""


@contextlib.contextmanager
def _refusals() -> Generator[None]:
    """End the command with what the core refuses, by the option that is at fault."""
    try:
        yield
    except PruningError as error:
        _refuse(error)


def _refuse(error: PruningError) -> NoReturn:
    fail_all([joined(_OPTIONS.get(one.param or "", one.param or ""), one.message) for one in each(error)], ExitCode.BAD_INPUT)


def _threads_of(again: ReproductionReport) -> int:
    """Return the report's number of threads, or this machine's where it could not start as many."""
    said, cores = again.machine.threads, os.cpu_count() or 1
    if 1 <= said <= _MOST_THREADS * cores:
        console.err.print(f"with {_counted(said)}, as the report says", highlight=False)
        return said
    note(f"the report says {said} threads, which is out of reach of this machine's {cores} cores: {cores} are taken")
    return cores


def _run(spec: PruneSpec, folder: Path, made_on: str, threads: int) -> tuple[Report, list[str]]:
    """Prune again, as ``coppice run`` does. Return the report, and what the run missed."""
    from pruning_core.machine.environment import choose_device
    from pruning_core.run.pipeline import run as run_pipeline

    device: str | None = made_on
    try:
        choose_device(device)
    except PruningError:
        note(f"the bundle was made on {device}, which this machine has not: another device is taken")
        device = None
    with computing(_refuse) as tell:
        try:
            made = run_pipeline(spec, folder, device=device, threads=threads, cache=cache_folder(), on_progress=tell)
        except Rejected as error:
            if error.report is None:
                fail(error.message, ExitCode.JOB_FAILED)
            return error.report, [f"the run now missed what was asked for: {error.message}"]
    return made, []


def _of_clocks(spec: PruneSpec) -> list[str]:
    """Say what of a spec a clock decides, so that the same weights cannot be promised."""
    if not any_measured(spec.all_targets):
        return []
    return ["the target is a latency: what stays depends on what the clock of each run says"]


def _show(result: Result, out: Path | None, *, json: bool) -> None:
    if json:
        typer.echo(jsonlib.dumps(_document(result, out)))
        return
    for file in result.files:
        console.out.print(console.escaped(_line(file)), soft_wrap=True, highlight=False)
        for own in file.tensors[:_MOST_TENSORS]:
            console.out.print(console.escaped(f"    {_tensor_line(own)}"), soft_wrap=True, highlight=False)
        if len(file.tensors) > _MOST_TENSORS:
            console.out.print(f"    and {len(file.tensors) - _MOST_TENSORS} more (--json has all)", highlight=False)
    for said in _closing(result):
        console.out.print(console.escaped(said), soft_wrap=True, highlight=False)
    if out is not None:
        console.out.print(f"bundle: {out}", soft_wrap=True, highlight=False, markup=False)


def _counted(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _line(file: FileComparison) -> str:
    if file.identical:
        return f"identical: {file.path} (sha256 {file.again})"
    if file.again is None:
        return f"differs: {file.path} was not made now"
    if file.sha256 is None:
        return f"differs: {file.path} is not in the bundle, and was made now"
    if not file.of:
        return f"differs: {file.path}, byte by byte; the tensors of this format are not compared"
    if not file.tensors:
        return f"differs: {file.path}, and none of its {file.of} tensors: what is around them does"
    largest = "" if file.largest is None else f"; largest difference {file.largest:.3g}"
    return f"differs: {file.path}, in {len(file.tensors)} of {file.of} tensors{largest}"


def _tensor_line(own: TensorDifference) -> str:
    match own.change:
        case "values":
            by = "" if own.largest is None else f", by at most {own.largest:.3g}"
            return f"{own.name}: {own.differing:,} of {own.values:,} values{by}"
        case "shape":
            return f"{own.name}: another shape"
        case "type":
            return f"{own.name}: another type of numbers"
        case "missing":
            return f"{own.name}: in the bundle alone"
        case "new":
            return f"{own.name}: made now alone"
        case _:
            assert_never(own.change)


def _closing(result: Result) -> list[str]:
    same = not result.circumstances
    lines = [f"other files that differ: {', '.join(result.others)}"] if result.others else []
    lines += [f"{own.name}: {own.then} then, {own.now} now" for own in result.circumstances]
    lines += [f"machine, versions and threads ({_counted(result.threads)}) are those of the report"] if same else []
    lines += [f"note: {said}" for said in result.notes]
    verdict = "identical: every weight file is the same to the last bit" if result.identical else "the weights differ"
    return [*lines, verdict]


def _document(result: Result, out: Path | None) -> dict[str, Any]:
    return {
        "identical": result.identical,
        "files": [{**asdict(file), "identical": file.identical} for file in result.files],
        "other_files": result.others,
        "circumstances": [asdict(own) for own in result.circumstances],
        "threads": result.threads,
        "notes": result.notes,
        "out": None if out is None else str(out),
    }
