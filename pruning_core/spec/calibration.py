"""`CalibrationSpec`: the samples that statistics are gathered on, and the resources for it. Torch-free."""

from __future__ import annotations

from functools import partial
from operator import is_
from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.tasks import TaskType

# Texts of the model's own, as a share of the user's samples, where a request does not say (decision 128).
_SHARE = 0.5
# Texts that are written side by side: what was said so far is kept for each of their tokens.
_MOST_TEXTS, _MOST_TOKENS = 64, 8192

Precision = Literal["auto", "float32", "bfloat16"]


class CalibrationSpec(Frozen):
    """The calibration samples, drawn from the training split with the seed, and the resources for gathering statistics."""

    samples: int = Field(default=512, ge=8, le=65_536)
    sampling: Literal["longer", "uniform"] = Field(
        default="longer",
        description="longer: draw twice as many rows and keep the longer half, for more tokens of context from as many "
        "samples; uniform: keep the rows as drawn.",
    )
    max_length: int = Field(default=128, ge=4, le=8192, description="Longest sequence in tokens; longer ones are truncated.")
    batch_tokens: int | None = Field(
        default=None,
        ge=64,
        le=1_048_576,
        description="Tokens in a batch, padding included; null: what suits the device. It changes results by rounding only.",
    )
    precision: Precision = Field(
        default="auto",
        description="Format of matrix products while statistics are gathered; auto: bfloat16 on devices built for it. Sums, "
        "solves, evaluation and latency are not affected.",
    )
    self_written: float | None = Field(
        default=None,
        exclude_if=partial(is_, None),
        ge=0,
        le=4,
        description="Text generation: texts that the dense model writes itself, added to the samples, as a share of them. They "
        "keep what the model can do off the domain of your text. Null: 0.5, and 0 where weights are paged or tasks are others.",
    )
    memory_mb: int = Field(
        default=448,
        ge=16,
        le=1_048_576,
        description="Megabytes of memory for hidden states that are kept between passes. Where they are too few, the dense "
        "model runs once more, and recovery keeps its own states in a file beside the bundle (on a GPU: in host memory).",
    )

    def written_share(self, task_type: TaskType, *, paged: bool) -> float:
        """Return how many texts a model writes itself, as a share of the user's samples.

        With paged weights every token of a text reads the whole model from disk, so that only a stated share is written.
        """
        if self.self_written is not None:
            return self.self_written
        return 0.0 if paged or task_type != "text-generation" else _SHARE


def texts_side_by_side(length: int) -> int:
    """Return how many texts of so many tokens a model writes side by side."""
    return max(1, min(_MOST_TEXTS, _MOST_TOKENS // length))
