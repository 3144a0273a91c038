"""`PruneSpec`, the versioned request: what to prune, for which task, to which target, and how. Torch-free.

A spec is frozen and forbids unknown fields, so that equal specs mean equal work. Shorthands exist for what people
type (``task="glue/sst2"``, ``method="fisher-cg"``, ``sparsity=0.5``); validation expands them, so code only ever sees
the full form.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import eq
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.config import JsonDict

from pruning_core.spec.artifacts import ArtifactSpec, Floor
from pruning_core.spec.calibration import CalibrationSpec
from pruning_core.spec.columns import Columns, NonEmptyStr
from pruning_core.spec.engine_targets import check_phases, with_engines
from pruning_core.spec.evaluation import AlsoSpec, EvaluationSpec, check_answers, say_of_set
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.glue import GLUE_TASKS
from pruning_core.spec.healing import Heal, HealSpec
from pruning_core.spec.latency import LatencySpec
from pruning_core.spec.ledger import check_ledger
from pruning_core.spec.memory import MemorySpec, check_paged, needs_all_weights
from pruning_core.spec.method import METHODS, FisherCG, Method, complete_by_method
from pruning_core.spec.metrics import METRICS, Metric
from pruning_core.spec.nearest import nearest
from pruning_core.spec.presets import preset_among
from pruning_core.spec.references import joined_revision
from pruning_core.spec.stored import check_stored
from pruning_core.spec.targets import Target, any_measured, target_name
from pruning_core.spec.tasks import KINDS, TaskType
from pruning_core.spec.together import Together
from pruning_core.spec.vocabulary import PARAM as VOCABULARY
from pruning_core.spec.vocabulary import Place, Vocabulary

# --- task -------------------------------------------------------------------------------------------------------------

# The transformers class that loads a model, by type of task.
AUTO_CLASSES: Mapping[TaskType, str] = {name: kind.loads_as for name, kind in KINDS.items()}


def _is_unset(value: object) -> bool:
    return value is None


def _with_revision(given: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Move the revision of ``org/name@revision``, in a field, into the field ``revision``."""
    reference, stated = given.get(field), given.get("revision")
    if not isinstance(reference, str) or not isinstance(stated, str | None):
        return given
    wrong, revision = Together(), stated
    with wrong.gathered(field):
        reference, revision = joined_revision(reference.strip(), stated)
    wrong.end()
    return {**given, field: reference} | ({} if revision is None else {"revision": revision})


class TaskSpec(Frozen):
    """The task that the model is pruned for, and its data.

    ``dataset`` is a Hub id, a folder that holds the splits (``train`` and ``validation``) as Parquet, Arrow, JSON or CSV files,
    or one such file.
    """

    name: NonEmptyStr | None = Field(default=None, description="A GLUE name such as glue/sst2 fills in the other fields.")
    type: TaskType
    dataset: NonEmptyStr
    config: NonEmptyStr | None = Field(default=None, description="Configuration (subset) of a Hub data set.")
    train_split: NonEmptyStr = "train"
    validation_split: NonEmptyStr = "validation"
    columns: Columns = Columns()
    metric: Metric
    # Left out of JSON where they are not set: a request without them is written as it was before there were any.
    revision: NonEmptyStr | None = Field(
        default=None, exclude_if=_is_unset, description="Branch, tag or commit of a Hub data set."
    )
    validation_share: float | None = Field(
        default=None,
        exclude_if=_is_unset,
        gt=0,
        le=0.5,
        description="Share of the training split's rows that is held out to validate on, in place of a validation split; "
        "null: a tenth, and only where the data has no split but the training split.",
    )
    prefix: str | None = Field(
        default=None,
        max_length=1024,
        description="Put before every text, as T5 expects: 'summarize: '. For summarization and translation only.",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_off_the_revision(cls, value: object) -> object:
        return _with_revision(cast("Mapping[str, Any]", value), "dataset") if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _fits_its_type(self) -> TaskSpec:
        kind, wrong = KINDS[self.type], Together()
        if self.metric not in kind.metrics:
            wrong.say(f"metric of a {self.type} task must be one of {', '.join(kind.metrics)}, got {self.metric}", "metric")
        given = len(self.columns.inputs)
        if given and (self.columns.image is not None) != (kind.reads == "image"):
            reads = "an image column in columns.image" if kind.reads == "image" else "text columns in columns.text"
            wrong.say(f"a {self.type} task reads {reads}", "columns")
        elif given > len(kind.inputs) or (0 < given < len(kind.inputs) and not kind.optional):
            wanted = f"{len(kind.inputs)} ({', '.join(kind.inputs)})"
            noun = "column" if len(kind.inputs) == 1 else "columns"
            wrong.say(f"a {self.type} task reads {wanted} {noun}, got {given}: {', '.join(self.columns.inputs)}", "columns")
        if self.prefix is not None and not kind.takes_prefix:
            takers = ", ".join(name for name, other in KINDS.items() if other.takes_prefix)
            wrong.say(f"prefix is for tasks that make a text from a text: {takers}", "prefix")
        wrong.end()
        return self

    @property
    def lower_is_better(self) -> bool:
        """Whether lower values of the metric are better."""
        return METRICS[self.metric].lower_is_better

    def of_set(self, own: AlsoSpec) -> TaskSpec:
        """Return the task of a further evaluation set, whose one split is both of its splits.

        Raises:
            ValueError: The task's model does not answer it, or its fields do not fit each other.
        """
        kind = own.type or self.type
        check_answers(self.type, kind)
        alike, split = kind == self.type, own.split or "validation"
        place = {"dataset": own.data, "config": own.config, "revision": own.revision} if own.data is not None else {}
        return self.but(
            **place,
            name=self.name if alike and not place else None,
            type=kind,
            train_split=split,
            validation_split=split,
            validation_share=None,
            columns=own.columns or (self.columns if alike else Columns()),
            metric=own.metric or (self.metric if alike else KINDS[kind].metrics[0]),
            prefix=self.prefix if KINDS[kind].takes_prefix else None,
        )


class TaskByName(Frozen):
    """A GLUE task whose data is taken from elsewhere, for instance from a local folder."""

    name: NonEmptyStr
    dataset: NonEmptyStr


def _expand_task(value: object) -> object:
    """Turn ``"glue/sst2"`` or ``{"name": "glue/sst2", "dataset": "/data/sst2"}`` into the full form."""
    given: Mapping[str, Any]
    if isinstance(value, str):
        given = {"name": value}
    elif isinstance(value, Mapping):
        given = cast("Mapping[str, Any]", value)
    else:
        return value
    name = given.get("name")
    if name is None or "type" in given:
        return given
    if not isinstance(name, str) or name not in GLUE_TASKS:
        raise ValueError(
            f"unknown task; known names are {', '.join(sorted(GLUE_TASKS))}. "
            f"For your own data give an object with type, dataset, columns and metric{_meant(name)}"
        )
    return {**GLUE_TASKS[name].as_task(), **given}


def _meant(name: object) -> str:
    """Return the end of a sentence that names the task, or the type of task, that was probably meant."""
    like = nearest(name, [*KINDS, *GLUE_TASKS]) if isinstance(name, str) else None
    if like is None:
        return ""
    return f'; did you mean {{"type": "{like}", ...}}?' if like in KINDS else f"; did you mean {like}?"


Task = Annotated[TaskSpec, BeforeValidator(_expand_task, json_schema_input_type=str | TaskByName | TaskSpec)]

# --- recovery ---------------------------------------------------------------------------------------------------------


class RecoverySpec(Frozen):
    """Recovery: the repair of each pruned sublayer against the dense model, layer by layer."""

    kind: Literal["weights", "masks", "none"] = Field(
        default="weights",
        description="weights: a least-squares fit of the output projection; masks: one scale for each unit, as in the paper; "
        "none: no repair.",
    )
    solver: Literal["auto", "cg", "pcg", "cholesky", "lsmr"] = "auto"
    damping: float = Field(default=0.1, ge=0, le=10, description="Ridge, relative to the mean diagonal of the Gram matrix.")
    tolerance: float = Field(default=1e-5, gt=0, lt=1, description="Relative residual at which the solver stops.")
    max_iterations: int = Field(default=200, ge=1, le=10_000)
    holdout: float = Field(
        default=0.125, gt=0, le=0.5, description="Share of the calibration samples that is held out to judge each repair."
    )
    heal: Heal = Field(
        default=HealSpec(),
        exclude_if=partial(eq, HealSpec()),
        description="Training after the repair, towards the dense model's outputs; distil turns it on.",
    )


# --- the spec ---------------------------------------------------------------------------------------------------------


def _document_shorthands(schema: JsonDict) -> None:
    """Add the shorthands to the JSON schema: they are accepted, so a generated client must know them."""
    properties = cast("dict[str, Any]", schema["properties"])
    properties["sparsity"] = {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "description": 'Shorthand for target {"metric": "sparsity", "sparsity": ...}.',
    }
    properties["data"] = {"type": "string", "description": "Shorthand for task.dataset."}
    required = cast("list[str]", schema.get("required", []))
    schema["required"] = [name for name in required if name != "target"]
    given: list[JsonDict] = [{"required": [name]} for name in ("target", "sparsity", "targets", "quality_floor")]
    schema["anyOf"] = [*given, *(_naming(name) for name, kind in METHODS.items() if kind.implies_target)]


def _naming(method: str) -> JsonDict:
    """Return the JSON schema of specs that name a method, by its name or as an object."""
    named: JsonDict = {"properties": {"name": {"const": method}}, "required": ["name"]}
    return {"properties": {"method": {"anyOf": [{"const": method}, named]}}, "required": ["method"]}


class PruneSpec(Frozen):
    """The complete request of one pruning job: the same spec, machine and versions give the same bytes."""

    model_config = ConfigDict(json_schema_extra=_document_shorthands)
    shorthands: ClassVar[tuple[str, ...]] = ("sparsity", "data")

    version: Literal[1] = 1
    model: NonEmptyStr = Field(
        description="Hub id (org/name, org/name@revision), or a folder with config.json and safetensors weights."
    )
    revision: NonEmptyStr | None = Field(default=None, description="Branch, tag or commit of a Hub id.")
    adapter: Place | None = Field(
        default=None,
        exclude_if=_is_unset,
        description="LoRA adapter of PEFT that is merged into the model first: a folder with adapter_config.json and "
        "adapter_model.safetensors, or the id of an upload.",
    )
    task: Task
    target: Target | None = None
    targets: tuple[Target, ...] = Field(
        default=(),
        max_length=16,
        description="Several targets in place of one. They share one scoring pass, each of them gets a checkpoint, and the "
        "report shows the frontier.",
    )
    quality_floor: Floor | None = Field(
        default=None,
        description="With a target: fail the job where the floor is not held. Without: find the model with the fewest MACs "
        "that holds it.",
    )
    vocabulary: Vocabulary = Field(
        default=None,
        exclude_if=_is_unset,
        description="Which tokens stay; null: all. Texts of the task's data become the same tokens as before.",
    )
    method: Method = FisherCG()
    recovery: RecoverySpec = RecoverySpec()
    calibration: CalibrationSpec = CalibrationSpec()
    memory: MemorySpec = MemorySpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    latency: LatencySpec = LatencySpec()
    artifacts: ArtifactSpec = ArtifactSpec()
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthands(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        given = dict(cast("Mapping[str, Any]", value))
        if "sparsity" in given:
            if "target" in given or "targets" in given:
                raise ValueError("give either sparsity or target or targets, one of them")
            given["target"] = {"metric": "sparsity", "sparsity": given.pop("sparsity")}
        if "data" in given:
            data, task = given.pop("data"), given.get("task")
            if isinstance(task, str):
                given["task"] = {"name": task, "dataset": data}
            elif isinstance(task, Mapping):
                given["task"] = {**cast("Mapping[str, Any]", task), "dataset": data}
        return with_engines(complete_by_method(dict(_with_revision(given, "model"))))

    @model_validator(mode="after")
    def _parts_fit_each_other(self) -> PruneSpec:
        kind, wrong = KINDS[self.task.type], Together()
        labels = kind.has_loss or kind.labels is not None
        if self.target is not None and self.targets:
            wrong.say("give one target, or a list of targets, not both")
        with wrong.gathered():
            self.method.check_targets(self.all_targets, recovery=self.recovery.kind, labels=labels)
        with wrong.gathered("evaluation", "ledger"):
            check_ledger(self.evaluation.ledger, self.task.type)
        with wrong.gathered("target"):
            check_phases(self.all_targets, self.task.type)
        with wrong.gathered("target"):
            check_stored(self.all_targets, self.method, self.artifacts, self.memory)
        with wrong.gathered():
            check_paged(self.memory, self.artifacts.formats, self.needs_all_weights)
        if self.method.drops_attention and self.artifacts.layout != "serve":
            wrong.say(
                f"layers without attention are written in artifacts.layout serve alone, and this is {self.artifacts.layout}: "
                "take serve, with the engines that are to run the model, or leave it out",
                "method",
                "drop_attention",
            )
        with wrong.gathered("recovery", "heal"):
            cuts_layers = self.artifacts.layout == "stock" and self.method.removes_units
            self.recovery.heal.check(self.task.type, trains=self.method.trains, cuts_layers=cuts_layers)
        if self.calibration.self_written and self.task.type != "text-generation":
            wrong.say(
                f"only models of text-generation write texts, and this task is {self.task.type}: leave it out",
                "calibration",
                "self_written",
            )
        if self.vocabulary is not None and kind.reads == "image":
            wrong.say(f"models of {self.task.type} read images and have no vocabulary: leave it out", VOCABULARY)
        if self.target is None and not self.targets and self.quality_floor is None:
            wrong.say("give one target, or a list of targets, or a quality_floor to search for the smallest model")
        if self.quality_floor is not None:
            metric = METRICS[self.task.metric]
            with wrong.gathered("quality_floor"):
                self.quality_floor.check_range(self.task.metric, metric.least, metric.most)
        with wrong.gathered("evaluation", "slices"):
            self.evaluation.check_slices(self.task.type, self.task.metric)
        for place, own in enumerate(self.evaluation.also):
            try:
                self.task.of_set(own)
            except ValidationError as error:
                say_of_set(wrong, error, place)
            except ValueError as error:
                wrong.say(str(error), "evaluation", "also", str(place), "type")
        names = [target_name(target) for target in self.targets]
        if len(set(names)) < len(names):
            wrong.say("targets must differ from each other")
        wrong.end()
        return self

    @property
    def preset(self) -> str | None:
        """The preset of the method that has these settings, whether it was named or they were; None if there is none."""
        return preset_among(self, self.method.presets)

    @property
    def trains(self) -> bool:
        """Whether the pruned model is trained: by the method's tier, or to heal it."""
        return self.method.trains or self.recovery.heal.heals

    @property
    def needs_all_weights(self) -> str | None:
        """Why the job needs all weights in memory at once; None if it does not."""
        clocks = any_measured(self.all_targets)
        return needs_all_weights(clocks=clocks, trains=self.method.trains, heals=self.recovery.heal.heals)

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """All requested targets; empty where the quality floor alone decides.

        The checkpoint of the first target is the bundle itself; the others lie in sub-folders.
        """
        return self.targets or (() if self.target is None else (self.target,))
