"""What is delivered: layout and formats of the bundle, and the quality that it must keep. Torch-free."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pruning_core.spec.frozen import Frozen

Layout = Literal["per_layer", "stock"]
Format = Literal["safetensors", "onnx", "compressed"]

# Shares of the MACs that are closer to each other are not told apart by the search for the smallest model that holds a quality
# floor: the metric's own noise is larger.
FLOOR_RESOLUTION = 0.02
# Trials that the bisection makes.
FLOOR_TRIALS = math.ceil(math.log2(1 / FLOOR_RESOLUTION))


class ArtifactSpec(Frozen):
    """What the bundle holds."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="Type of the written weights; auto keeps that of the checkpoint given."
    )
    layout: Layout = Field(
        default="per_layer",
        description="per_layer: each layer has its own widths, for the best quality; loads with `import pruning_core` or "
        "trust_remote_code. stock: what the model's own config can say (one FFN width, fewer layers), loads anywhere.",
    )
    formats: tuple[Format, ...] = Field(
        default=("safetensors",),
        min_length=1,
        max_length=3,
        description="safetensors always; onnx in addition; compressed: a folder with the values that are not zero and where "
        "they stand, for methods that set weights to zero, which have it by default.",
    )
    shard_mb: int = Field(
        default=5000,
        ge=1,
        le=1_048_576,
        description="Megabytes of weights in one file; larger checkpoints are written in several.",
    )
    strict: bool = Field(default=False, description="Fail the job when one of the formats cannot be delivered.")

    @model_validator(mode="after")
    def _safetensors_always(self) -> ArtifactSpec:
        if "safetensors" not in self.formats:
            raise ValueError("formats must include safetensors: it is what everything else is made of and checked against")
        if len(set(self.formats)) < len(self.formats):
            raise ValueError("formats must differ from each other")
        return self


class QualityFloor(Frozen):
    """The least quality that counts as success, by the task's metric on the validation split."""

    kind: Literal["relative", "absolute"] = Field(
        default="relative", description="relative: a share of the dense model's; absolute: in the metric's own unit."
    )
    value: float = Field(
        allow_inf_nan=False,
        description="Of metrics of which less is better (perplexity, loss) it is the most that is allowed: absolute as it "
        "stands, relative the dense model's divided by it.",
    )

    @model_validator(mode="after")
    def _relative_is_a_share(self) -> QualityFloor:
        if self.kind == "relative" and not 0 < self.value <= 1:
            raise ValueError("a relative quality floor must be > 0 and <= 1: it is a share of the dense model's quality")
        return self

    def check_range(self, metric: str, least: float, most: float) -> None:
        """Check an absolute floor against what a metric can be.

        Raises:
            ValueError: It never is that.
        """
        if self.kind == "absolute" and not least <= self.value <= most:
            raise ValueError(
                f"an absolute quality_floor in {metric} must be between {least:g} and {most:g}, got {self.value:g}"
            )

    def required(self, dense: float, *, lower_is_better: bool = False) -> float:
        """Give the floor in the metric's own unit, for a dense model of this quality."""
        if self.kind == "absolute":
            return self.value
        return dense / self.value if lower_is_better else self.value * dense


def _expand(value: object) -> object:
    """Turn ``0.99`` into ``{"kind": "relative", "value": 0.99}``."""
    return {"value": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Floor = Annotated[QualityFloor, BeforeValidator(_expand, json_schema_input_type=float | QualityFloor)]
