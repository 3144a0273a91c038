"""What a report says of engines and of the files that are made for them. Torch-free."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.engines import EngineName
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.targets import Phase


class ExportReport(Frozen):
    """A file of a further format, or the reason why there is none."""

    format: str
    kind: str = Field(default="", description="The variant of the format, such as Q8_0 of gguf.")
    status: Literal["ok", "failed"]
    reason: str | None = None
    path: str | None = Field(default=None, description="File or folder in the checkpoint.")
    bytes: int | None = None
    dense_bytes: int | None = Field(default=None, description="Bytes of the dense model in the same form, where it was made.")
    max_difference: float | None = Field(
        default=None, description="Largest difference of its outputs from the checkpoint's, relative to the largest output."
    )
    latency_ms: float | None = Field(
        default=None, description="Median of a pass on a CPU at the shape of the latency measurement, where it was timed."
    )
    notes: tuple[str, ...] = Field(default=(), description="What else users should know, such as tensors of another type.")


class SpeedReport(Frozen):
    """Speed of one model in an engine, in tokens a second for models that generate, else in milliseconds a pass.

    A spread is the slowest turn's time less the fastest's, relative to the median; of reports of earlier versions it is null.
    """

    prefill_tokens_s: float | None = None
    decode_tokens_s: float | None = None
    pass_ms: float | None = None
    prefill_spread: float | None = None
    decode_spread: float | None = None
    pass_spread: float | None = None


class EngineReport(Frozen):
    """What an engine did with the bundle, in a process and an environment of its own.

    ``agreement`` is the share of positions at which the engine's most likely token is the reference's, of those where the
    reference's margin (the distance of its two largest logits) exceeds ``margin``. The reference is transformers in float32.
    """

    engine: EngineName
    version: str | None = None
    status: Literal["ok", "failed", "missing", "refused"] = Field(
        description="ok: it works. failed: it does not. missing: the engine is not installed. refused: it cannot hold such a "
        "model."
    )
    reason: str | None = Field(default=None, description="Why it is not ok, as a sentence.")
    path: str | None = Field(default=None, description="File or folder in the checkpoint that it loaded.")
    texts: int = 0
    tokens: int = Field(default=0, description="Positions that were compared.")
    decided: int = Field(default=0, description="Positions whose margin exceeds `margin`.")
    agreement: float | None = None
    margin: float | None = None
    max_difference: float | None = Field(
        default=None, description="Largest difference of logits or outputs from the reference's, relative to the largest."
    )
    tolerance: float | None = None
    continuations: int = Field(default=0, description="Prompts that were continued greedily; 0 in reports of earlier versions.")
    same_continuations: int = Field(default=0, description="Continuations that are the reference's to the last token.")
    new_tokens: int = Field(default=0, description="Tokens of each continuation.")
    generated: str | None = Field(default=None, description="A greedy continuation of the first text.")
    dense: SpeedReport | None = Field(default=None, description="The dense model in the same engine, in turns with the pruned.")
    pruned: SpeedReport | None = None
    notes: tuple[str, ...] = ()

    def latency_share(self, phase: Phase | None) -> float | None:
        """Return the share of the dense model's time that the pruned model took; None where it was not measured."""
        name = "pass_ms" if phase is None else f"{phase}_tokens_s"
        dense, pruned = (None if own is None else getattr(own, name) for own in (self.dense, self.pruned))
        if dense is None or pruned is None:
            return None
        return pruned / dense if phase is None else dense / pruned

    @property
    def works(self) -> bool:
        """Whether the bundle runs in the engine and gives what it should."""
        return self.status == "ok"
