"""The submit form: its parts from the schemas of methods and specs, and the body that a filled-in form stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, cast

from app.errors import FieldError
from app.jobs.limits import NO_LIMITS, JobLimits
from app.jobs.naming import NO_NAMING, Naming
from app.jobs.needs import NO_NEEDS, Needs
from app.jobs.schemas import JobCreate
from app.paths import is_under
from app.web import evaluated
from app.web.formats import WITHOUT_SUBJECT, words
from app.web.forms import Field, Form, fields_of, listed, number, pairs, put
from pruning_core.spec.targets import TARGET_METRICS
from pruning_core.spec.tasks import KINDS, TaskKind
from pruning_core.spec.vocabulary import VocabularySpec
from pruning_core.support.capabilities import methods, tasks

# Sections below the first screen: field of the spec, title, and name of its schema.
SECTIONS = (
    ("recovery", "Recovery", "RecoverySpec"),
    ("calibration", "Calibration", "CalibrationSpec"),
    ("memory", "Memory", "MemorySpec"),
    ("evaluation", "Evaluation", "EvaluationSpec"),
    ("latency", "Latency measurement", "LatencySpec"),
    ("artifacts", "Bundle", "ArtifactSpec"),
)
# For each metric of a target, its name for people and the field of the target that holds its value.
METRICS: Mapping[str, tuple[str, str]] = {
    # The method decides the pattern, so that a target has no value for it.
    **{name: (row.title, "" if name == "pattern" else row.field) for name, row in TARGET_METRICS.items()},
    "floor": ("None: the smallest model that holds the quality floor", ""),
}
# Where a latency is measured, of a target.
_PLACES = ("engine", "phase")
_OWN_DATA = ("config", "train_split", "validation_split", "prefix")
_WHERE = {  # JSON pointers into the body, longest first, and the form control of each
    "/task/columns/label": "label_column",
    "/task/columns": "text_column",
    "/task/config": "config",
    "/task/prefix": "prefix",
    "/task/revision": "data_revision",
    "/task/validation_share": "validation_share",
    "/task/train_split": "train_split",
    "/task/validation_split": "validation_split",
    "/task/metric": "task_metric",
    "/task/dataset": "data",
    "/quality_floor/kind": "floor_kind",
    "/quality_floor/confidence": "floor_confidence",
    "/quality_floor": "floor",
    "/target/tolerance": "tolerance",
    "/target/at_most": "amount",
    "/target/engine": "latency_engine",
    "/target/phase": "latency_phase",
    "/sparsity": "amount",
    "/targets": "amount",
    "/target": "amount",
    "/method": "method",
    "/name": "name",
    "/tags": "tags",
    "/model": "model",
    "/revision": "revision",
    "/task": "task",
    "/data": "data",
    "/vocabulary": "vocabulary",
    "/adapter": "adapter",
    "/seed": "seed",
    "/priority": "priority",
    "/needs/device": "needs_device",
    "/needs": "needs_tags",
    "/max_attempts": "max_attempts",
    "/timeout_s": "timeout_s",
    "/metadata": "metadata",
}


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """One method, and the controls of its options."""

    name: str
    description: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One object of the spec."""

    name: str
    title: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Blueprint:
    """All that the form can ask."""

    methods: tuple[MethodChoice, ...]
    sections: tuple[Section, ...]
    tasks: tuple[str, ...]
    types: tuple[str, ...]
    task_metrics: tuple[str, ...]


@cache
def blueprint() -> Blueprint:
    """Make the form from the schemas that `/v1/methods` and `/v1/tasks` publish, and the spec's own."""
    definitions = JobCreate.model_json_schema()["$defs"]
    known = tasks()
    metric = known[0].options["properties"]["metric"]
    return Blueprint(
        methods=tuple(
            MethodChoice(
                info.name,
                f"{info.description} {info.by_default}".rstrip(),
                tuple(fields_of(info.options, f"method.{info.name}", ("method",))),
            )
            for info in methods()
        ),
        sections=tuple(
            Section(name, title, tuple(fields_of({**definitions[definition], "$defs": definitions}, name, (name,))))
            for name, title, definition in SECTIONS
        ),
        tasks=tuple(info.name for info in known if info.task is not None),
        types=tuple(info.name for info in known if info.task is None),
        task_metrics=tuple(metric["enum"]),
    )


def body_of(form: Form) -> dict[str, Any]:
    """Return the body that a form stands for. Defaults are left out, so that the body says what was chosen."""
    plan = blueprint()
    body: dict[str, Any] = {"model": form.one("model").strip(), "task": _task(form, plan)}
    for name, read in (
        ("name", str),
        ("tags", listed),
        ("revision", str),
        ("data", str),
        ("seed", number),
        ("floor", number),
        ("priority", number),
        ("max_attempts", number),
        ("timeout_s", number),
        ("metadata", pairs),
        ("vocabulary", str),
        ("adapter", str),
    ):
        if text := form.one(name).strip():
            body["quality_floor" if name == "floor" else name] = read(text)
    needs: dict[str, Any] = {"device": device} if (device := form.one("needs_device").strip()) else {}
    if tags := listed(form.one("needs_tags")):
        needs["tags"] = tags
    body |= {"needs": needs} if needs else {}
    if "quality_floor" in body:
        body["quality_floor"] = {"kind": form.one("floor_kind", "relative"), "value": body["quality_floor"]}
        if confidence := form.one("floor_confidence").strip():
            body["quality_floor"]["confidence"] = number(confidence)
    if "data" in body and isinstance(body["task"], dict):
        body["task"]["dataset"] = body.pop("data")
    body |= _target(form)
    method = form.one("method")
    body["method"] = {"name": method}
    chosen = next((choice.fields for choice in plan.methods if choice.name == method), ())
    for field in (*chosen, *(field for section in plan.sections for field in section.fields)):
        for value in field.read(form):
            put(body, field.path, value)
    if found := evaluated.evaluation_of(form, _kind(form).reads):
        body["evaluation"] = body.get("evaluation", {}) | found
    return body


def _kind(form: Form) -> TaskKind:
    """Return the kind of task that a form names; named tasks classify texts, and an unknown one is refused elsewhere."""
    return KINDS.get(form.one("task"), KINDS["text-classification"])


def _task(form: Form, plan: Blueprint) -> object:
    name = form.one("task")
    if name not in plan.types:
        return name
    columns = evaluated.columns_of(KINDS[name].reads, form.one("text_column"), form.one("label_column").strip())
    task: dict[str, Any] = {"type": name, "columns": columns, "metric": form.one("task_metric")}
    if revision := form.one("data_revision").strip():
        task["revision"] = revision
    if share := form.one("validation_share").strip():
        task["validation_share"] = number(share)
    return task | {key: value for key in _OWN_DATA if (value := form.one(key).strip())}


def _target(form: Form) -> dict[str, Any]:
    metric = form.one("metric")
    field = METRICS[metric][1] if metric in METRICS else ""
    if not field:
        return {}
    absolute = TARGET_METRICS[metric].absolute if metric in TARGET_METRICS else False
    amounts = [part.strip() if absolute else number(part.strip()) for part in form.one("amount").split(",") if part.strip()]
    tolerance = form.one("tolerance").strip()
    rest = {"tolerance": number(tolerance)} if tolerance and not absolute else {}
    if metric == "latency":
        rest |= {key: chosen for key in _PLACES if (chosen := form.one(f"latency_{key}"))}
    targets = [{"metric": metric, field: amount} | rest for amount in amounts]
    return {"target": targets[0]} if len(targets) == 1 else {"targets": targets} if targets else {"target": {"metric": metric}}


def form_of(
    spec: Mapping[str, Any],
    *,
    priority: int = 0,
    metadata: Mapping[str, str] = MappingProxyType({}),
    needs: Needs = NO_NEEDS,
    limits: JobLimits = NO_LIMITS,
    naming: Naming = NO_NAMING,
) -> Form:
    """Fill in the form with a job's spec, as it was dumped, and what belongs to the job."""
    task = spec["task"]
    named = _is_whole(task)
    targets = list(spec["targets"]) or ([spec["target"]] if spec["target"] else [])
    metric = targets[0]["metric"] if targets else "floor"
    field = METRICS[metric][1]
    floor = spec["quality_floor"]
    values: dict[str, list[str]] = {
        "name": [naming.name or ""],
        "tags": [", ".join(naming.tags)],
        "model": [spec["model"]],
        "revision": [spec["revision"] or ""],
        "task": [task["name"] if named else task["type"]],
        "data": [task["dataset"]],
        "text_column": ["" if named else task["columns"].get("image") or ", ".join(task["columns"]["text"])],
        "label_column": ["" if named else task["columns"]["label"] or ""],
        "task_metric": [task["metric"]],
        "data_revision": [task.get("revision") or ""],
        "validation_share": [f"{share:g}" if (share := task.get("validation_share")) else ""],
        "metric": [metric],
        "amount": [", ".join(str(target[field]) if field == "at_most" else f"{target[field]:g}" for target in targets)]
        if field
        else [""],
        "tolerance": [f"{targets[0]['tolerance']:g}" if field and "tolerance" in targets[0] else ""],
        "floor": [f"{floor['value']:g}" if floor else ""],
        "floor_kind": [floor["kind"] if floor else "relative"],
        "floor_confidence": [f"{floor['confidence']:g}" if floor and floor.get("confidence") else ""],
        "adapter": [spec.get("adapter") or ""],
        "vocabulary": [_keep(spec.get("vocabulary"))],
        "seed": [str(spec["seed"])],
        "priority": [str(priority) if priority else ""],
        "needs_device": ["" if needs.device == NO_NEEDS.device else needs.device],
        "needs_tags": [", ".join(needs.tags)],
        "max_attempts": [str(limits.max_attempts or "")],
        "timeout_s": [f"{limits.timeout_s:g}" if limits.timeout_s else ""],
        "metadata": ["\n".join(f"{key}={value}" for key, value in metadata.items())],
        "method": [spec["method"]["name"]],
    } | {name: ["" if named else task[name] or ""] for name in _OWN_DATA}
    values |= evaluated.shown(spec["evaluation"])
    values |= {f"latency_{key}": [(targets[0].get(key) if targets else None) or ""] for key in _PLACES}
    for one in _fields():
        section = cast("dict[str, Any]", spec[one.path[0]])
        others = one.name.startswith("method.") and not one.name.startswith(f"method.{section['name']}.")
        values[one.name] = one.shown(one.default if others else _within(section, one.path[1:], one.default))
    return Form(values)


def _keep(vocabulary: Mapping[str, Any] | None) -> str:
    """Return which tokens stay, as the form has it; empty where all do."""
    return "" if vocabulary is None else VocabularySpec.model_validate(vocabulary).written


def _within(section: Mapping[str, Any], path: Sequence[str], default: object) -> object:
    """Return the value at a path in an object as it was dumped, which leaves some defaults out."""
    found: object = section
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return default
        found = cast("Mapping[str, object]", found)[name]
    return found


def _is_whole(task: Mapping[str, Any]) -> bool:
    """Return whether a task's name determines all of its fields but the place of the data."""
    known = next((info.task for info in tasks() if info.task is not None and info.name == task["name"]), None)
    return known is not None and {**known, "dataset": ""} == {**task, "dataset": ""}


def empty_form() -> Form:
    """Fill in the form with what is meant where nothing is said."""
    values = {"method": ["fisher-cg"], "task": ["glue/sst2"], "metric": ["macs"], "amount": ["0.5"]}
    values |= {field.name: field.shown(field.default) for field in _fields()}
    return Form(values)


def changed_from(form: Form, usual: Form) -> set[str]:
    """Return the names of the controls that say something else than usual: folded away, they must not be forgotten."""
    names = form.values.keys() | usual.values.keys()
    return {name for name in names if [*filter(None, form.all(name))] != [*filter(None, usual.all(name))]}


def place(errors: list[FieldError], method: str) -> dict[str, list[str]]:
    """Put each error to the control that it is about; under the empty name stand those about none."""
    placed: dict[str, list[str]] = {}
    names = {"/" + "/".join(field.path): field.name for field in _fields() if not field.name.startswith("method.")}
    names |= {f"/method/{field.path[-1]}": field.name for field in _fields() if field.name.startswith(f"method.{method}.")}
    for error in errors:
        own = names.get(error.pointer) or evaluated.control_of(error.pointer)
        named = own or next((name for start, name in _WHERE.items() if is_under(error.pointer, start)), "")
        messages, message = placed.setdefault(named, []), error.message
        # People see the control's label, and not the name that its value has in the body.
        bare = message.removeprefix(f"{error.pointer.rpartition('/')[2]} ")
        message = bare if named and bare.startswith(WITHOUT_SUBJECT) else message
        if message not in messages:
            messages.append(message)
    return placed


def labels() -> dict[str, str]:
    """Name the controls as the form does, for a summary of what is wrong."""
    own = {"latency_engine": "Latency in", "latency_phase": "Phase"}
    own |= {"amount": "Value", "data": "Data", "floor": "Quality floor", "floor_kind": "The floor is", "metric": "Measure"}
    found = {name: words(name.rpartition(".")[2]) for name in _WHERE.values()} | {
        field.name: field.label for field in _fields()
    }
    return found | own | dict(evaluated.labels())


def _fields() -> Iterator[Field]:
    plan = blueprint()
    yield from (field for method in plan.methods for field in method.fields)
    yield from (field for section in plan.sections for field in section.fields)
