"""`HealSpec`: training of a pruned model towards the dense model's outputs, within a budget of minutes. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.tasks import TaskType
from pruning_core.spec.training import TrainingOptions

# Samples of a step: blocks of text are long, and a step of 16 of 128 tokens has 2,048.
_BATCH, _BLOCKS = 32, 16
_RATE, _RATE_OF_TEXT = 1e-4, 1.5e-4
_TEMPERATURE, _TEMPERATURE_OF_CLASSES = 1.0, 2.0
_GENERATION = "text-generation"
# Text of the model's own among the samples of each step, where a request does not say.
_OWN_SHARE = 0.5


class HealSpec(Frozen):
    """Healing: after the repair, all weights but the embeddings learn to answer as the dense model does (distillation).

    Held-out samples decide, of the user's data and of what a decoder writes itself: the weights with the smallest divergence
    are kept, those of the start among them. It needs no labels.
    """

    kind: Literal["none", "distil"] = Field(
        default="none", description="distil: train towards the dense model's outputs; none: the repair is the last step."
    )
    minutes: float = Field(
        default=10,
        gt=0,
        le=10_080,
        description="Budget for each target, writing texts and judging included; as many steps are made as it has room for.",
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="Number of steps, whatever they take, in place of the budget: the same steps on every machine, so that the "
        "bundle can be made again to the last bit. Null: as many as the budget allows.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Peak learning rate, after a linear rise and before a linear fall to zero. Null: 1e-4, and 1.5e-4 of text "
        "generation.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="Samples in each step. Null: 32, and 16 blocks of text generation."
    )
    max_length: int | None = Field(
        default=None, ge=4, le=8192, description="Longest sample in tokens. Null: calibration.max_length."
    )
    temperature: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Softens the distributions that are compared. Null: 2, and 1 of text generation. Held-out samples are "
        "compared at 1.",
    )
    hidden: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Weight of the distance to the dense model's hidden states, which the layout stock has too few layers for.",
    )
    own_text: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Text generation: share of each step that the dense model wrote itself, which keeps what it can do off the "
        "domain of your text. Null: 0.5, and 0 of other tasks, whose models write nothing.",
    )
    max_train_rows: int | None = Field(
        default=65_536, ge=16, description="Number of training rows to use, drawn with the seed; null: the whole split."
    )
    holdout: float = Field(
        default=0.05, gt=0, le=0.5, description="Share of the samples, 8 at least, that is held out to judge the weights."
    )
    judgements: int = Field(default=10, ge=1, le=1000, description="Judgements on the held-out samples, at most.")
    patience: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Stop after this many judgements in a row without a new best. Null: never, since what large steps disturb "
        "comes back as they become small; healing that has exploded stops all the same.",
    )

    @property
    def heals(self) -> bool:
        """Whether anything is healed."""
        return self.kind != "none"

    def own_share(self, task_type: TaskType) -> float:
        """Return the share of each step that the dense model writes itself."""
        if task_type != _GENERATION:
            return 0.0
        return _OWN_SHARE if self.own_text is None else self.own_text

    def training(self, task_type: TaskType) -> TrainingOptions:
        """Return the options for the one training loop: the dense model's outputs alone."""
        writes = task_type == _GENERATION
        return TrainingOptions(
            learning_rate=self.learning_rate or (_RATE_OF_TEXT if writes else _RATE),
            batch_size=self.batch_size or (_BLOCKS if writes else _BATCH),
            distillation=1.0,
            hidden=self.hidden,
            temperature=self.temperature or (_TEMPERATURE if writes else _TEMPERATURE_OF_CLASSES),
            max_train_rows=self.max_train_rows,
            holdout=self.holdout,
            patience=self.patience,
        )

    def check(self, task_type: TaskType, *, trains: bool, cuts_layers: bool) -> None:
        """Refuse at submit what cannot be healed.

        Args:
            task_type: The type of the task.
            trains: Whether the method trains already.
            cuts_layers: Whether the pruned model may have fewer layers than the dense model.

        Raises:
            ValueError: It cannot.
        """
        if not self.heals:
            if self != HealSpec():
                raise ValueError("settings of recovery.heal are given, and its kind is none: set kind to distil")
            return
        if trains:
            raise ValueError(
                "the trained tier trains the pruned model already, with the dense model's outputs in its loss: leave "
                "recovery.heal out, or take tier one-shot"
            )
        if self.own_text and task_type != _GENERATION:
            raise ValueError(f"only models of text-generation write texts, and this task is {task_type}: leave own_text out")
        if self.hidden and cuts_layers:
            raise ValueError(
                "hidden compares the states of every layer, and the layout stock removes layers: leave hidden out, or take the "
                "layout per_layer or serve"
            )


def _expand(value: object) -> object:
    """Turn ``"distil"`` into ``{"kind": "distil"}``."""
    return {"kind": value} if isinstance(value, str) else value


Heal = Annotated[HealSpec, BeforeValidator(_expand, json_schema_input_type=Literal["none", "distil"] | HealSpec)]
