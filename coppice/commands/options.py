"""The options that describe a job, shared by ``run``, ``check`` and ``prune``, and the spec that they make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer
from pydantic import ValidationError

from coppice.commands import words
from coppice.commands.budgets import (
    TARGET_OPTIONS,
    BytesAtMost,
    FloorConfidence,
    LatencyKeep,
    MacsKeep,
    ParamsKeep,
    QualityFloor,
    Sparsity,
    Tolerance,
    as_target,
    floor_of,
)
from coppice.commands.delivery import (
    Engines,
    Formats,
    Gguf,
    LatencyEngine,
    LatencyPhase,
    Layout,
    Quantization,
    Strict,
    delivered,
)
from coppice.commands.evaluated import Also, Examples, LedgerTexts, Slices, UsesLedger, evaluated
from coppice.commands.first import Adapter, Vocabulary, changed_first
from coppice.commands.healed import Heal, HealMinutes, healed
from coppice.commands.inputs import (
    Data,
    DataRevision,
    Image,
    Label,
    Metric,
    Model,
    Prefix,
    Revision,
    Task,
    Text,
    TrainSplit,
    ValidationShare,
    ValidationSplit,
)
from coppice.commands.methods import Block, DropAttention, Method, Pattern, Preset, Segment, Tier
from coppice.commands.places import local_data, local_model
from coppice.commands.spec_file import holds, read_spec, targets_of, with_tolerance
from coppice.console import ExitCode, fail, fail_all, joined, note, sentences
from pruning_core.errors import PruningError, each
from pruning_core.spec.method import MethodName
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import KINDS, TaskType

Samples = Annotated[int | None, typer.Option(help="Calibration samples (default 512).")]
SelfWritten = Annotated[
    float | None,
    typer.Option(help="Text generation: texts that the dense model writes itself, as a share of the samples (default 0.5)."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of all random draws (default 0).")]
Weights = Annotated[
    str | None,
    typer.Option(help="resident (all in memory) or paged (one block at a time, for models larger than memory); auto decides."),
]
SpecFile = Annotated[Path | None, typer.Option("--spec", help="JSON file with a PruneSpec; options override its fields.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="COPPICE_API_KEY", show_envvar=True, help="API key, cpk_...; better set in the environment."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]

# Options of methods, and the method that one alone means. Tiers and presets are of several: the first of them is meant.
_OF_METHODS: Mapping[str, MethodName] = {
    "pattern": "admm-pattern",
    "tier": "admm-pattern",
    "block": "block-lasso",
    "segment": "block-lasso",
    "drop_attention": "fisher-cg",
    "preset": "fisher-cg",
}
_OF_SEVERAL = {"tier", "preset"}  # they keep the method that a spec file names
_FIELDS = ("model", "revision", "task", "seed", "quality_floor")  # of the spec, that an option sets as it is given
_OF_TASKS = ("text", "image", "label", "metric", "prefix")
_OF_DATA = {  # options of any task's data, a GLUE task's too, and their fields
    "train_split": "train_split",
    "validation_split": "validation_split",
    "validation_share": "validation_share",
    "data_revision": "revision",
}
_OPTIONS = {
    "model": ("model", "--model"),
    "revision": ("revision", "--revision"),
    "adapter": ("adapter", "--adapter"),
    "task": ("task", "--task"),
    "data": ("data", "--data"),
    "task.dataset": ("data", "--data"),
    "task.train_split": ("train_split", "--train-split"),
    "task.validation_split": ("validation_split", "--validation-split"),
    "task.validation_share": ("validation_share", "--validation-share"),
    "task.revision": ("data_revision", "--data-revision"),
    "task.columns": ("text", "--text"),
    "task.columns.text": ("text", "--text"),
    "task.columns.image": ("image", "--image"),
    "task.columns.label": ("label", "--label"),
    "task.metric": ("metric", "--metric"),
    "task.prefix": ("prefix", "--prefix"),
    "task.type": ("task", "--task"),
    "method": ("method", "--method"),
    "method.pattern": ("pattern", "--pattern"),
    "method.tier": ("tier", "--tier"),
    "method.block": ("block", "--block"),
    "method.segment": ("segment", "--segment"),
    "method.drop_attention": ("drop_attention", "--drop-attention"),
    "method.preset": ("preset", "--preset"),
    "target.engine": ("latency_engine", "--latency-engine"),
    "target.phase": ("latency_phase", "--latency-phase"),
    "target.tolerance": ("tolerance", "--tolerance"),
    "seed": ("seed", "--seed"),
    "calibration.samples": ("samples", "--samples"),
    "calibration.self_written": ("self_written", "--self-written"),
    "vocabulary": ("vocabulary", "--vocabulary"),
    "vocabulary.keep": ("vocabulary", "--vocabulary"),
    "recovery.heal": ("heal", "--heal"),
    "recovery.heal.kind": ("heal", "--heal"),
    "recovery.heal.minutes": ("heal_minutes", "--heal-minutes"),
    "quality_floor": ("quality_floor", "--quality-floor"),
    "quality_floor.value": ("quality_floor", "--quality-floor"),
    "quality_floor.confidence": ("floor_confidence", "--floor-confidence"),
    "evaluation.slices": ("slices", "--slice"),
    "evaluation.examples": ("examples", "--examples"),
    "evaluation.also": ("also", "--also"),
    "evaluation.ledger": ("ledger", "--ledger"),
    "memory.weights": ("weights", "--weights"),
    "artifacts.layout": ("layout", "--layout"),
    "artifacts.formats": ("formats", "--format"),
    "artifacts.engines": ("engines", "--engine"),
    "artifacts.gguf": ("gguf", "--gguf"),
    "artifacts.quantization": ("quantization", "--quantization"),
    "artifacts.strict": ("strict", "--strict"),
}


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """The options that describe a job. A command takes them as its own options by `takes_job`."""

    model: Model = None
    revision: Revision = None
    adapter: Adapter = None
    task: Task = None
    data: Data = None
    train_split: TrainSplit = None
    validation_split: ValidationSplit = None
    validation_share: ValidationShare = None
    data_revision: DataRevision = None
    text: Text = None
    image: Image = None
    label: Label = None
    metric: Metric = None
    prefix: Prefix = None
    sparsity: Sparsity = None
    macs_keep: MacsKeep = None
    params_keep: ParamsKeep = None
    latency_keep: LatencyKeep = None
    bytes_at_most: BytesAtMost = None
    latency_engine: LatencyEngine = None
    latency_phase: LatencyPhase = None
    tolerance: Tolerance = None
    quality_floor: QualityFloor = None
    floor_confidence: FloorConfidence = None
    slices: Slices = None
    also: Also = None
    ledger: UsesLedger = None
    ledger_texts: LedgerTexts = None
    examples: Examples = None
    layout: Layout = None
    formats: Formats = None
    engines: Engines = None
    gguf: Gguf = None
    quantization: Quantization = None
    strict: Strict = None
    method: Method = None
    pattern: Pattern = None
    tier: Tier = None
    block: Block = None
    segment: Segment = None
    drop_attention: DropAttention = None
    preset: Preset = None
    samples: Samples = None
    self_written: SelfWritten = None
    vocabulary: Vocabulary = None
    heal: Heal = None
    heal_minutes: HealMinutes = None
    seed: Seed = None
    weights: Weights = None
    spec: SpecFile = None

    def to_spec(self, *, needs_target: bool = True) -> PruneSpec:
        """Merge the spec file and the options into a validated spec. Paths become absolute; bad input ends the command.

        Args:
            needs_target: Whether something must be asked for; else a spec without a target gets one of no account.
        """
        fields = dict(self._file)
        fields |= {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}
        fields |= floor_of(fields.get("quality_floor"), self.floor_confidence)
        fields |= self._task(fields.get("task"))
        if self.method is not None or self._of_method():
            fields["method"] = self._method(fields.get("method"))
        if targets := self._targets_for(fields):
            for name in ("sparsity", "target", "targets"):
                fields.pop(name, None)
            fields |= targets
        # 2:4 and its like are targets by themselves. `PruneSpec` refuses the pattern that is none, unstructured.
        if fields.keys().isdisjoint({"sparsity", "target", "targets", "quality_floor"}) and not _is_pattern(
            fields.get("method")
        ):
            if needs_target:
                some = ", ".join(TARGET_OPTIONS.values())
                fail(f"target is required: give one of {some}, or a --quality-floor alone", ExitCode.BAD_INPUT)
            fields["sparsity"] = 0.5
        if chosen := self.delivered(fields):
            fields["artifacts"] = {**(fields.get("artifacts") or {}), **chosen}
        calibration = {name: value for name in ("samples", "self_written") if (value := getattr(self, name)) is not None}
        if calibration:
            fields["calibration"] = {**fields.get("calibration", {}), **calibration}
        fields |= changed_first(self)
        fields |= healed(self, fields.get("recovery"))
        fields |= evaluated(self, fields.get("evaluation"), local_data)
        if self.weights is not None:
            fields["memory"] = {"weights": self.weights}
        if self.data is not None:
            fields["data"] = local_data(self.data)
        if isinstance(fields.get("model"), str):
            fields["model"] = local_model(fields["model"])
        try:
            return PruneSpec.model_validate(fields)
        except ValidationError as error:
            fail_all(sentences(error, self.worded), ExitCode.BAD_INPUT)

    def asked_for(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the targets and the quality floor that options set, by the field; empty where there are none.

        Args:
            fields: The spec that they change.
        """
        floor = {} if self.quality_floor is None else {"quality_floor": self.quality_floor}
        return self._targets_for(fields) | floor | floor_of(self.quality_floor, self.floor_confidence)

    def delivered(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of ``artifacts`` that options set or imply, for the spec that they change."""
        given = cast("Mapping[str, Any]", fields.get("artifacts") or {})
        return delivered(self, given, fields.get("task"))

    def option_for(self, field: str) -> str:
        """Return where a user changes a field of the spec: an option, or a field of the spec file."""
        field = field.rstrip(".0123456789")  # task.columns.text.0 is set by --text
        field = next((name for name in ("evaluation.also", "evaluation.ledger") if field.startswith(f"{name}.")), field)
        if field.partition(".")[0] in ("target", "targets", "sparsity") and field not in _OPTIONS:
            given, option = bool(self._used()), " or ".join(TARGET_OPTIONS[name] for name in self._used() or TARGET_OPTIONS)
            field = "sparsity" if "sparsity" in self._file else field  # it stands for a target
        else:
            name, option = _OPTIONS.get(field, ("", ""))
            given = bool(name) and getattr(self, name) is not None
        if option and (given or not holds(self._file, field)):
            return option
        return f"{field} in {self.spec}" if self.spec is not None else f"{field} (a field of a --spec file)"

    def worded(self, field: str, message: str) -> str:
        """Return a sentence of the core about a field in the command line's own words."""
        if field == "task" and message.startswith("unknown task"):
            return joined(self.option_for(field), words.of_a_task(self.task, message))
        said = words.in_options(message, _OPTIONS)
        return joined(self.option_for(field) if field and not (field == "artifacts" and said.startswith("--")) else "", said)

    @cached_property
    def _file(self) -> Mapping[str, Any]:
        """The fields of the spec file."""
        return {} if self.spec is None else read_spec(self.spec)

    def _task(self, given: object) -> dict[str, object]:
        """Return the field ``task`` made of a type and its columns; empty where a GLUE name or the spec file says all of it."""
        said: dict[str, Any] = {name: value for name in _OF_TASKS if (value := getattr(self, name)) is not None}
        of_data = {field: value for name, field in _OF_DATA.items() if (value := getattr(self, name)) is not None}
        is_type = isinstance(given, str) and given in KINDS
        if not is_type and not (said and isinstance(given, Mapping)):
            if said:
                some = ", ".join(f"--{name}" for name in said)
                fail(f"{some}: only where --task is a type: {', '.join(KINDS)}", ExitCode.BAD_INPUT)
            if not of_data or given is None:
                return {}
            whole = cast("Mapping[str, Any]", given) if isinstance(given, Mapping) else {"name": given}
            return {"task": {**whole, **of_data}}
        said |= of_data
        columns = {name: said.pop(name) for name in ("text", "image", "label") if name in said}
        if is_type:
            return {"task": {"type": given, "columns": columns, "metric": KINDS[cast("TaskType", given)].metrics[0], **said}}
        whole = cast("Mapping[str, Any]", given)
        return {"task": {**whole, **said, "columns": {**whole.get("columns", {}), **columns}}}

    def _method(self, in_file: object) -> object:
        """Return the field ``method``. An option of one method implies it, and keeps the spec file's other options of it."""
        chosen = self._of_method()
        if not chosen:
            return self.method
        kept = cast("Mapping[str, Any]", in_file) if isinstance(in_file, Mapping) else {}
        of_file = in_file if isinstance(in_file, str) else kept.get("name")
        order = ("block", "segment", "pattern", "drop_attention", "tier", "preset")
        meant = next(_OF_METHODS[name] for name in order if name in chosen)
        name = self.method or (of_file if chosen.keys() <= _OF_SEVERAL and isinstance(of_file, str) else meant)
        return {**(kept if kept.get("name") == name else {}), "name": name, **chosen}

    def _of_method(self) -> dict[str, str | bool]:
        """Return the given options that belong to a method."""
        given = {name: getattr(self, name) for name in _OF_METHODS}
        return {name: value for name, value in given.items() if value is not None}

    def _used(self) -> dict[str, list[float] | list[str]]:
        """Return the targets that count. --sparsity gives way to any other: what will be measured decides."""
        given: dict[str, list[float] | list[str]] = {name: values for name in TARGET_OPTIONS if (values := getattr(self, name))}
        if len(given) > 1:
            given.pop("sparsity", None)
        return given

    def _targets(self) -> list[dict[str, object]]:
        used = self._used()
        place: dict[str, object] = {"engine": self.latency_engine, "phase": self.latency_phase}
        in_engine = {name: value for name, value in place.items() if value is not None}
        if in_engine and not self.latency_keep:
            some = " and ".join(f"--latency-{name}" for name in in_engine)
            fail(f"{some}: only with --latency-keep, the share of the latency to keep", ExitCode.BAD_INPUT)
        in_engine = {**self._place_in_file(), **in_engine}
        if self.sparsity and "sparsity" not in used:
            note(f"--sparsity is not used beside {' and '.join(TARGET_OPTIONS[name] for name in used)}, which says more")
        return [as_target(name, value, in_engine) for name, values in used.items() for value in values]

    def _targets_for(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the field ``target`` or ``targets`` that options set; a tolerance alone changes those of the spec."""
        targets = self._targets()
        if self.tolerance is not None and not targets:
            targets = targets_of(fields)
            if not targets:
                fail("--tolerance: only with a target, such as --macs-keep", ExitCode.BAD_INPUT)
        if not targets:
            return {}
        if self.tolerance is not None and any(own["metric"] == "bytes" for own in targets):
            fail("--tolerance: not with a target in bytes, which is met or missed", ExitCode.BAD_INPUT)
        targets = with_tolerance(targets, self.tolerance, fields)
        return {"targets": targets} if len(targets) > 1 else {"target": targets[0]}

    def _place_in_file(self) -> dict[str, object]:
        """Return where the spec file's latency is measured: a share on the command line changes the share alone."""
        of_file = self._file.get("target")
        if not isinstance(of_file, Mapping):
            return {}
        target = cast("Mapping[str, Any]", of_file)
        return {name: target[name] for name in ("engine", "phase") if target.get("metric") == "latency" and name in target}


def takes_job(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter ``job`` by the options of `JobOptions`. The command gets what was chosen as ``job``."""
    signature = inspect.signature(command, eval_str=True)
    options = list(inspect.signature(JobOptions, eval_str=True).parameters.values())
    parameters: list[inspect.Parameter] = []
    for declared in signature.parameters.values():
        parameters += options if declared.name == "job" else [declared.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

    @functools.wraps(command)
    def taking(**given: Any) -> None:
        chosen = {option.name: given.pop(option.name) for option in options}
        command(job=JobOptions(**chosen), **given)

    # typer reads both.
    taking.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue]
    taking.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return taking


def refuse(error: PruningError, job: JobOptions) -> NoReturn:
    """End the command with all that the core refuses, in the command line's own words."""
    fail_all([job.worded(one.param or "", one.message) for one in each(error)], ExitCode.BAD_INPUT)


def _is_pattern(method: object) -> bool:
    name = cast("Mapping[str, Any]", method).get("name") if isinstance(method, Mapping) else method
    return name == "admm-pattern"
