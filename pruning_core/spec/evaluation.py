"""`EvaluationSpec`: how quality is evaluated, on which slices, and on which further sets. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import eq, not_
from typing import Annotated, Any, Literal, cast

from pydantic import Field, StringConstraints, ValidationError, model_validator

from pruning_core.spec.columns import Columns, NonEmptyStr
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.ledger import Ledger
from pruning_core.spec.metrics import Metric
from pruning_core.spec.references import joined_revision
from pruning_core.spec.tasks import KINDS, TaskType, finding_of
from pruning_core.spec.together import Together

MOST_SLICES = 8
MOST_SETS = 8
# Findings that are made of rows, so that a metric can be computed of a part of them.
_BY_ROW = ("classes", "decisions", "scores", "replies")
# Fields of a further set, by those of the task that it is made of.
FIELDS_OF_SETS: Mapping[str, str] = {
    "dataset": "data",
    "train_split": "split",
    "validation_split": "split",
    **{name: name for name in ("config", "revision", "type", "columns", "metric")},
}
# As conditions, metrics and file names can have it.
SetName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]*$")
]


class AlsoSpec(Frozen):
    """A further evaluation set. What is left out is as in the job's task."""

    name: SetName = Field(description="In the report and in conditions: letters, digits, hyphens and underscores.")
    data: NonEmptyStr | None = Field(
        default=None,
        description="A Hub id, a folder, a file, or the id of an upload; null: the task's own data, of which `split` names "
        "another split.",
    )
    config: NonEmptyStr | None = Field(default=None, description="Configuration (subset) of a Hub data set.")
    revision: NonEmptyStr | None = Field(default=None, description="Branch, tag or commit of a Hub data set.")
    split: NonEmptyStr | None = Field(
        default=None, description="The split that is judged; null: validation, or the file where `data` is one."
    )
    type: TaskType | None = Field(
        default=None, description="A type of task that the same model answers by the same head; null: the task's."
    )
    columns: Columns | None = Field(default=None, description="Null: the task's where the set has them, else guessed.")
    metric: Metric | None = Field(default=None, description="Null: the task's, or the first of another type.")
    max_samples: int | None = Field(
        default=None, ge=1, description="Evaluate on the first N rows; null: as evaluation.max_samples."
    )

    @model_validator(mode="before")
    @classmethod
    def _split_off_the_revision(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        given = cast("Mapping[str, Any]", value)
        data, stated = given.get("data"), given.get("revision")
        if not isinstance(data, str) or not isinstance(stated, str | None):
            return given
        wrong, revision = Together(), stated
        with wrong.gathered("data"):
            data, revision = joined_revision(data.strip(), stated)
        wrong.end()
        return {**given, "data": data} | ({} if revision is None else {"revision": revision})

    @model_validator(mode="after")
    def _is_another_set(self) -> AlsoSpec:
        wrong = Together()
        if self.data is None and self.split is None:
            wrong.say("give data, or a split of the task's own data: without either it is the task's evaluation again")
        for name in ("config", "revision"):
            if self.data is None and getattr(self, name) is not None:
                wrong.say(f"{name} is of data of its own; give data, or leave it out", name)
        wrong.end()
        return self


class EvaluationSpec(Frozen):
    """The evaluation of quality on the validation split."""

    max_samples: int | None = Field(default=None, ge=1, description="Evaluate on the first N rows; null: on all rows.")
    max_length: int = Field(default=128, ge=4, le=8192)
    examples: int = Field(
        default=20,
        ge=0,
        le=100,
        exclude_if=partial(eq, 20),
        description="Rows whose answers changed most, with both answers, in the report, and never in the card; 0: none.",
    )
    precision: Literal["auto", "float32"] = Field(
        default="auto",
        exclude_if=partial(eq, "auto"),
        description="auto: language models that are stored in bfloat16 or float16 are evaluated in it, where the device is "
        "faster in it and a check on two batches agrees with float32. float32: all are evaluated in float32.",
    )
    slices: tuple[NonEmptyStr, ...] = Field(
        default=(),
        max_length=MOST_SLICES,
        exclude_if=not_,
        description="Columns of the validation split by whose values the rows are sliced; the worst slices are in the report.",
    )
    also: tuple[AlsoSpec, ...] = Field(
        default=(),
        max_length=MOST_SETS,
        exclude_if=not_,
        description="Further evaluation sets, on which the dense and the pruned model are compared as well.",
    )
    ledger: Ledger = Field(
        default=None,
        exclude_if=partial(eq, None),
        description="What decoders and embedders can do beside their task, before and after; true: on made texts alone.",
    )

    @model_validator(mode="after")
    def _named_once(self) -> EvaluationSpec:
        wrong = Together()
        if len(set(self.slices)) < len(self.slices):
            wrong.say("name each column once", "slices")
        names = [own.name for own in self.also]
        for place, name in enumerate(names):
            if name in names[:place]:
                wrong.say(f"another set is called {name}; give each a name of its own", "also", str(place), "name")
        wrong.end()
        return self

    def check_slices(self, task_type: TaskType, metric: Metric) -> None:
        """Refuse slices of a task whose rows are not judged one by one.

        Raises:
            ValueError: It is one.
        """
        if self.slices and finding_of(task_type, metric) not in _BY_ROW:
            fitting = [name for name, kind in KINDS.items() if set(kind.findings) & set(_BY_ROW)]
            raise ValueError(
                f"{metric} of a {task_type} task is not judged row by row, and slices are made of rows; leave them out. Tasks "
                f"with slices: {', '.join(fitting)}"
            )


def check_answers(task_type: TaskType, other: TaskType) -> None:
    """Refuse a further set of a type that the task's model does not answer by the same head.

    Raises:
        ValueError: It is one.
    """
    own = KINDS[task_type]
    fitting = [name for name, kind in KINDS.items() if (kind.loads_as, kind.outputs) == (own.loads_as, own.outputs)]
    if other not in fitting:
        raise ValueError(f"a {task_type} model does not answer {other}; it answers {' and '.join(fitting)}")


def say_of_set(wrong: Together, error: ValidationError, place: int) -> None:
    """Add what is wrong with the task that a further set was made into, at the set's own fields."""
    for one in error.errors():
        first, *rest = [str(part) for part in one["loc"]] or ["type"]
        message = one["msg"].removeprefix("Value error, ")
        wrong.say(message, "evaluation", "also", str(place), FIELDS_OF_SETS.get(first, first), *rest)
