"""Artifacts: layout, engines and formats of the bundle, and the quality floor that it must hold. Torch-free."""

from __future__ import annotations

import math
from functools import partial
from operator import eq
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pruning_core.spec.engines import EngineName
from pruning_core.spec.frozen import Frozen

Layout = Literal["per_layer", "stock", "serve"]
Format = Literal["safetensors", "onnx", "compressed", "gguf", "openvino", "compressed-tensors"]
GgufType = Literal["F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K"]
Quantization = Literal["fp8", "int8", "w4a16"]
OnnxKind = Literal["stored", "float16", "int8"]

# Fields that earlier versions did not have are left out at their defaults: a spec that does not set them stays what it was.

# The search for the smallest model that holds a quality floor does not tell apart shares of the MACs that are closer than this:
# the metric's own noise is larger.
FLOOR_RESOLUTION = 0.02
# Number of trials of that search, a bisection.
FLOOR_TRIALS = math.ceil(math.log2(1 / FLOOR_RESOLUTION))


def _is_unset(value: object) -> bool:
    return value is None


class ArtifactSpec(Frozen):
    """The contents of the bundle: type of the weights, layout, engines, formats and size of the files."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="Type of the written weights; auto: the type of the source checkpoint."
    )
    layout: Layout = Field(
        default="per_layer",
        description="per_layer: each layer has its own widths, for the best quality; the bundle loads with "
        "`import pruning_core` or trust_remote_code. stock: only what the model's own config can express (one FFN width, fewer "
        "layers); the bundle loads anywhere. serve: layers have widths of their own, as far as the engines can hold them.",
    )
    experts: Literal["alike", "own"] = Field(
        default="alike",
        exclude_if=partial(eq, "alike"),
        description="For mixtures of experts. alike: every layer keeps the same number, and the bundle loads anywhere, as of "
        "layout stock. own: with layout per_layer, each layer keeps a number of its own.",
    )
    engines: tuple[EngineName, ...] = Field(
        default=(),
        exclude_if=partial(eq, ()),
        max_length=8,
        description="Engines that the bundle is for. With layout serve they decide what a layer may look like. In the proof "
        "each one loads the bundle, and has a row in the report: it works, or the reason why not.",
    )
    formats: tuple[Format, ...] = Field(
        default=("safetensors",),
        min_length=1,
        max_length=6,
        description="safetensors: always required. onnx: an ONNX graph in addition. compressed: a folder that stores only the "
        "nonzero values and their positions, for methods that set weights to zero, which write it by default. gguf: files for "
        "llama.cpp. openvino: OpenVINO's own form. compressed-tensors: a quantised checkpoint, as vLLM's users deploy.",
    )
    gguf: tuple[GgufType, ...] = Field(
        default=("F16",),
        exclude_if=partial(eq, ("F16",)),
        min_length=1,
        max_length=7,
        description="Types of the GGUF files, one file for each. For format gguf.",
    )
    quantization: Quantization = Field(
        default="int8",
        exclude_if=partial(eq, "int8"),
        description="Weights and activations of the format compressed-tensors: fp8 or int8 for both, w4a16: weights of 4 bits.",
    )
    onnx: tuple[OnnxKind, ...] = Field(
        default=("stored",),
        exclude_if=partial(eq, ("stored",)),
        min_length=1,
        max_length=3,
        description="ONNX graphs, one file for each. For format onnx. stored, always: it has the weights in the type of the "
        "checkpoint. float16: weights of two bytes, whatever the checkpoint's are. int8: weights and activations of 8 bits.",
    )
    shard_mb: int = Field(
        default=5000,
        ge=1,
        le=1_048_576,
        description="Largest size of a weight file in megabytes; larger checkpoints are split into several files.",
    )
    strict: bool = Field(default=False, description="Fail the job when one of the formats cannot be delivered.")

    @model_validator(mode="after")
    def _safetensors_always(self) -> ArtifactSpec:
        if "safetensors" not in self.formats:
            raise ValueError("formats must include safetensors: it is what everything else is made of and checked against")
        if "stored" not in self.onnx:
            raise ValueError("onnx must include stored: it is the graph that the others are made of")
        for name in ("formats", "engines", "gguf", "onnx"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} must differ from each other")
        return self

    @model_validator(mode="after")
    def _serve_names_engines(self) -> ArtifactSpec:
        if self.layout == "serve" and not self.engines:
            raise ValueError('layout serve follows the engines that are asked for: name them, such as engines ["vllm"]')
        return self


class QualityFloor(Frozen):
    """The lowest quality that counts as success, measured by the task's metric on the validation split."""

    kind: Literal["relative", "absolute"] = Field(
        default="relative", description="relative: a share of the dense model's quality; absolute: in the metric's own unit."
    )
    value: float = Field(
        allow_inf_nan=False,
        description="The floor. For metrics where lower is better (perplexity, loss) it sets an upper bound: the value itself "
        "where it is absolute, the dense model's metric divided by the value where it is relative.",
    )
    confidence: float | None = Field(
        default=None,
        ge=0.5,
        le=0.999,
        exclude_if=_is_unset,
        description="The floor is held by the lower end of the two-sided interval of this confidence, such as 0.95 (the upper "
        "end where less is better); null: by the measured quality itself, whatever chance has added.",
    )

    @model_validator(mode="after")
    def _relative_is_a_share(self) -> QualityFloor:
        if self.kind == "relative" and not 0 < self.value <= 1:
            raise ValueError("a relative quality floor must be > 0 and <= 1: it is a share of the dense model's quality")
        return self

    def check_range(self, metric: str, least: float, most: float) -> None:
        """Check that an absolute floor lies in the metric's range.

        Raises:
            ValueError: It does not.
        """
        if self.kind == "absolute" and not least <= self.value <= most:
            raise ValueError(
                f"an absolute quality_floor in {metric} must be between {least:g} and {most:g}, got {self.value:g}"
            )

    def required(self, dense: float, *, lower_is_better: bool = False) -> float:
        """Return the floor in the metric's own unit, for a dense model of this quality."""
        if self.kind == "absolute":
            return self.value
        return dense / self.value if lower_is_better else self.value * dense


def _expand(value: object) -> object:
    """Turn ``0.99`` into ``{"kind": "relative", "value": 0.99}``."""
    return {"value": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Floor = Annotated[QualityFloor, BeforeValidator(_expand, json_schema_input_type=float | QualityFloor)]
