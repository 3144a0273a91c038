"""Messages between the worker and the scripts that run engines: the request, and the findings.

`running` reads and writes their JSON without these classes, since the scripts must not import anything of Coppice.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EngineTiming(_Message):
    """What is timed: a prompt and the tokens written after it, or a pass over inputs; in how many turns.

    No turn but the first is begun once ``budget_s`` seconds are over.
    """

    prompt: list[int] = []
    new_tokens: int = 0
    inputs: dict[str, Any] = {}
    turns: int = 0
    budget_s: float = 120.0


class EngineRequest(_Message):
    """The request to the process of an engine.

    ``texts`` are scored and ``prompts`` are continued by models that generate; others are run on ``inputs``, each a batch of
    named lists of numbers; for sentence-transformers these are texts. ``dtype`` is the type to compute in, where the engine
    has a choice.
    """

    use: Literal["generation", "outputs"]
    path: str
    dense: str | None
    auto_class: str
    trust_remote_code: bool
    reads: list[str]
    unit: bool = False
    texts: list[list[int]] = []
    prompts: list[list[int]] = []
    new_tokens: int = 0
    top: int = 8
    positions: int = 2**20
    inputs: list[dict[str, Any]] = []
    timing: EngineTiming = EngineTiming()
    threads: int = 1
    dtype: str = "float32"


class EngineSpeeds(_Message):
    """Seconds of every turn, by what was timed: ``prefill_s`` and ``decode_s``, or ``pass_s``."""

    dense: list[dict[str, float]]
    pruned: list[dict[str, float]]


# Ids of tokens, the most likely first, and their log-probabilities; the token that follows is the last, if not among the first.
Position = tuple[list[int], list[float]]


class EngineFound(_Message):
    """The findings. What an error cut short is missing; ``stage`` says when it came up."""

    version: str | None = None
    dtype: str | None = None
    texts: list[list[Position]] | None = None
    generated: list[list[int]] | None = None
    outputs: list[list[list[float]]] | None = None
    speeds: EngineSpeeds | None = None
    error: str | None = None
    causes: list[str] = []
    stage: str | None = None
