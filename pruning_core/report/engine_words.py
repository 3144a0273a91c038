"""Words for the rows of engines, the same on the page, the card and in the console. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from pruning_core.report.engines import EngineReport, SpeedReport
from pruning_core.spec.engines import ENGINE_TITLES


@dataclass(frozen=True, slots=True)
class EngineWords:
    """One engine in words.

    Attributes:
        engine: Its name and version.
        found: Whether the bundle works there, or the reason why not.
        agreement: How far it agrees with transformers; empty where that was not compared.
        speed: The speed of the dense and the pruned model; empty where that was not measured.
    """

    engine: str
    found: str
    agreement: str
    speed: str


def engine_words(rows: Iterable[EngineReport]) -> list[EngineWords]:
    """Put rows of engines into words."""
    return [EngineWords(_name(row), _found(row), _agreement(row), _speed(row)) for row in rows]


def _name(row: EngineReport) -> str:
    return f"{ENGINE_TITLES[row.engine]} {row.version or ''}".strip()


def _found(row: EngineReport) -> str:
    match row.status:
        case "ok":
            return "works"
        case "failed":
            return f"does not work: {row.reason}"
        case "missing":
            return f"not tried: {row.reason}"
        case "refused":
            return f"not possible: {row.reason}"
        case _:
            assert_never(row.status)


def _agreement(row: EngineReport) -> str:
    said: list[str] = []
    if row.agreement is not None:
        said.append(f"{row.agreement:.1%} of {row.decided:,} tokens" if row.texts and row.generated is not None else "")
        said[-1] = said[-1] or f"{row.agreement:.1%} of {row.decided:,} answers"
    if row.max_difference is not None:
        said.append(f"within {row.max_difference:.1e}")
    return ", ".join(said)


def _speed(row: EngineReport) -> str:
    dense, pruned = row.dense, row.pruned
    if pruned is None:
        return ""
    parts: list[str] = []
    for name, title in (("prefill_tokens_s", "prefill"), ("decode_tokens_s", "decode")):
        after = getattr(pruned, name)
        if after is not None:
            parts.append(f"{title} {_pair(dense, name, after, 'tokens/s')}")
    if pruned.pass_ms is not None:
        parts.append(_pair(dense, "pass_ms", pruned.pass_ms, "ms"))
    return ", ".join(parts)


def _pair(dense: SpeedReport | None, name: str, after: float, unit: str) -> str:
    before = None if dense is None else getattr(dense, name)
    if before is None:
        return f"{after:.1f} {unit}"
    faster = before / after if unit == "ms" else after / before
    return f"{before:.1f} to {after:.1f} {unit}, {faster:.2f}x"
