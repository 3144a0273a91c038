"""The versioned request: what to prune, for which task, to which target, and how. Torch-free.

A `PruneSpec` is frozen and forbids unknown fields, so that equal specs mean equal work. Shorthands exist for what people
type (``task="glue/sst2"``, ``method="fisher-cg"``, ``sparsity=0.5``); validation expands them, so code only ever sees
the full form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict

from pruning_core.spec.artifacts import ArtifactSpec, Floor
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.glue import GLUE_TASKS
from pruning_core.spec.memory import MemorySpec, check_paged
from pruning_core.spec.method import METHODS, FisherCG, Method, complete_by_method
from pruning_core.spec.metrics import METRICS, Metric
from pruning_core.spec.targets import Target, any_measured, target_name
from pruning_core.spec.tasks import KINDS, TaskType

NonEmptyStr = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024)]


# --- task -------------------------------------------------------------------------------------------------------------

# The transformers class that loads a model for each type.
AUTO_CLASSES: Mapping[TaskType, str] = {name: kind.loads_as for name, kind in KINDS.items()}


class Columns(Frozen):
    """Which columns of the data set hold the input (text, one or two columns, or an image) and the label."""

    text: tuple[NonEmptyStr, ...] = Field(
        default=(), max_length=2, description="Texts; for pairs, questions and contexts two columns; lists of words for tokens."
    )
    image: NonEmptyStr | None = Field(default=None, description="Images: bytes, or paths within the data set's folder.")
    label: NonEmptyStr | None = None

    @model_validator(mode="after")
    def _some_input(self) -> Columns:
        if bool(self.text) == (self.image is not None):
            raise ValueError("name the columns that the task reads: text, one or two, or image")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """All columns that are read as input."""
        return self.text if self.image is None else (self.image,)


class TaskSpec(Frozen):
    """What the model is for, and the data that says so.

    ``dataset`` is a Hub id, or a folder that holds ``train`` and ``validation`` as Parquet, JSON Lines or CSV files.
    """

    name: NonEmptyStr | None = Field(default=None, description="A GLUE name such as glue/sst2 fills in the rest.")
    type: TaskType
    dataset: NonEmptyStr
    config: NonEmptyStr | None = Field(default=None, description="Configuration (subset) of a Hub data set.")
    train_split: NonEmptyStr = "train"
    validation_split: NonEmptyStr = "validation"
    columns: Columns
    metric: Metric
    prefix: str | None = Field(
        default=None,
        max_length=1024,
        description="Put before every text, as T5 wants it: 'summarize: '. For texts from texts only.",
    )

    @model_validator(mode="after")
    def _metric_fits_type(self) -> TaskSpec:
        kind = KINDS[self.type]
        if self.metric not in kind.metrics:
            raise ValueError(f"metric of a {self.type} task must be one of {', '.join(kind.metrics)}, got {self.metric}")
        if kind.labels is not None and self.columns.label is None:
            raise ValueError(
                f"columns.label is required for a {self.type} task: it names the column with the answers, "
                f"which are {kind.labels.words}"
            )
        return self

    @model_validator(mode="after")
    def _columns_fit_type(self) -> TaskSpec:
        kind, given = KINDS[self.type], len(self.columns.inputs)
        wanted = f"{len(kind.inputs)} ({', '.join(kind.inputs)})"
        if (self.columns.image is not None) != (kind.reads == "image"):
            reads = "an image column in columns.image" if kind.reads == "image" else "text columns in columns.text"
            raise ValueError(f"a {self.type} task reads {reads}")
        if given > len(kind.inputs) or (given < len(kind.inputs) and not kind.optional):
            raise ValueError(f"a {self.type} task reads {wanted} columns, got {given}: {', '.join(self.columns.inputs)}")
        if self.prefix is not None and not kind.takes_prefix:
            takers = ", ".join(name for name, other in KINDS.items() if other.takes_prefix)
            raise ValueError(f"prefix is for tasks that make a text from a text: {takers}")
        return self

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the metric is better."""
        return METRICS[self.metric].lower_is_better


class TaskByName(Frozen):
    """A GLUE task with its data taken from elsewhere, for instance a local folder."""

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
            "For your own data give an object with type, dataset, columns and metric"
        )
    return {**GLUE_TASKS[name].as_task(), **given}


Task = Annotated[TaskSpec, BeforeValidator(_expand_task, json_schema_input_type=str | TaskByName | TaskSpec)]

# --- recovery ---------------------------------------------------------------------------------------------------------


class RecoverySpec(Frozen):
    """How each pruned sublayer is repaired against the dense model, layer by layer."""

    kind: Literal["weights", "masks", "none"] = Field(
        default="weights",
        description="weights: least squares for the output projection; masks: one scale a unit (the paper's); none.",
    )
    solver: Literal["auto", "cg", "pcg", "cholesky", "lsmr"] = "auto"
    damping: float = Field(default=0.1, ge=0, le=10, description="Ridge, relative to the mean diagonal of the Gram.")
    tolerance: float = Field(default=1e-5, gt=0, lt=1, description="Relative residual at which iterations stop.")
    max_iterations: int = Field(default=200, ge=1, le=10_000)
    holdout: float = Field(default=0.125, gt=0, le=0.5, description="Share of the calibration samples that judges each repair.")


# --- data, measurement, artifacts -------------------------------------------------------------------------------------


Precision = Literal["auto", "float32", "bfloat16"]


class CalibrationSpec(Frozen):
    """The samples that statistics are gathered on, drawn from the training split with the seed, and what gathering may take."""

    samples: int = Field(default=512, ge=8, le=65_536)
    sampling: Literal["longer", "uniform"] = Field(
        default="longer",
        description="longer: of twice as many rows drawn, the longer half, for more tokens of context from as many samples; "
        "uniform: as drawn.",
    )
    max_length: int = Field(default=128, ge=4, le=8192, description="Longest sequence in tokens; longer is truncated.")
    batch_tokens: int | None = Field(
        default=None,
        ge=64,
        le=1_048_576,
        description="Tokens a batch, padding included; null: what suits the device. No result depends on it beyond rounding.",
    )
    precision: Precision = Field(
        default="auto",
        description="Format of matrix products while statistics are gathered; auto: bfloat16 on devices built for it. Sums, "
        "solves, evaluation and latency are not affected.",
    )
    memory_mb: int = Field(
        default=448,
        ge=16,
        le=1_048_576,
        description="Megabytes of hidden states that may be kept in memory between passes. With fewer the dense model runs "
        "once more, and recovery's own streams lie in a file beside the bundle (on a GPU: in host memory).",
    )


class EvaluationSpec(Frozen):
    """How quality is measured on the validation split."""

    max_samples: int | None = Field(default=None, ge=1, description="The first N rows; all of them when null.")
    max_length: int = Field(default=128, ge=4, le=8192)


class LatencySpec(Frozen):
    """The shape at which dense and pruned latency are measured side by side."""

    batch: int = Field(default=8, ge=1, le=1024)
    length: int = Field(default=128, ge=4, le=8192, description="Tokens a sequence, no padding.")
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads; ignored on a GPU.")
    repeats: int = Field(default=20, ge=3, le=1000)

    def for_frontier(self) -> LatencySpec:
        """Give the measurement for one of several checkpoints: a quarter of the repeats, since there are more of them."""
        return self.but(repeats=max(3, self.repeats // 4))


# --- the spec ---------------------------------------------------------------------------------------------------------


def _document_shorthands(schema: JsonDict) -> None:
    """Show the shorthands in the JSON schema: they are accepted, so a generated client must know them."""
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
    """Describe a spec that names a method, by its name or as an object."""
    named: JsonDict = {"properties": {"name": {"const": method}}, "required": ["name"]}
    return {"properties": {"method": {"anyOf": [{"const": method}, named]}}, "required": ["method"]}


class PruneSpec(Frozen):
    """One pruning job, complete: the same spec, machine and versions give the same bytes."""

    model_config = ConfigDict(json_schema_extra=_document_shorthands)

    version: Literal[1] = 1
    model: NonEmptyStr = Field(description="Hub id, or a folder with config.json and safetensors weights.")
    revision: NonEmptyStr | None = Field(default=None, description="Branch, tag or commit of a Hub id.")
    task: Task
    target: Target | None = None
    targets: tuple[Target, ...] = Field(
        default=(),
        max_length=16,
        description="Several budgets instead of one target: one scoring pass, a checkpoint each, the frontier in the report.",
    )
    quality_floor: Floor | None = Field(
        default=None,
        description="Fail where less quality is kept. Without a target: find the model with the fewest MACs that holds it.",
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
        return complete_by_method(given)

    @model_validator(mode="after")
    def _one_way_to_say_the_targets(self) -> PruneSpec:
        if self.target is not None and self.targets:
            raise ValueError("give one target, or a list of targets, not both")
        kind = KINDS[self.task.type]
        labels = kind.has_loss or kind.labels is not None
        self.method.check_targets(self.all_targets, recovery=self.recovery.kind, labels=labels)
        check_paged(self.memory, self.artifacts.formats, clocks=any_measured(self.all_targets), trains=self.method.trains)
        if self.target is None and not self.targets and self.quality_floor is None:
            raise ValueError("give one target, or a list of targets, or a quality_floor to search for the smallest model")
        if self.quality_floor is not None:
            metric = METRICS[self.task.metric]
            self.quality_floor.check_range(self.task.metric, metric.least, metric.most)
        names = [target_name(target) for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError("targets must differ from each other")
        return self

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """Every target asked for; none where the quality floor alone decides.

        The first is the job's own: its checkpoint is the bundle's, the others lie in sub-folders.
        """
        return self.targets or (() if self.target is None else (self.target,))
