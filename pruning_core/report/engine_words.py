"""Words for the rows of engines, the same on the page, the card and in the console. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from pruning_core.report.engines import EngineReport, SpeedReport
from pruning_core.report.report import Report
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


def conditions(report: Report) -> str:
    """Return sentences on how speeds and agreement were measured, without which they mean nothing; empty without engines."""
    rows, threads = report.engines, report.latency_ms.threads
    said: list[str] = []
    if any(row.agreement is not None or row.tokens for row in rows):
        said.append(
            "Agreement is with transformers in float32; a position is decided where its two largest logits are further apart "
            "than rounding in the engine can move them; differences are relative to the largest value."
        )
    timed = [row for row in rows if row.pruned is not None]
    if timed:
        passes = all(row.pruned.pass_ms is not None for row in timed if row.pruned is not None)
        work = (
            "a pass at the shape of the latency measurement (of sentence-transformers the longest batch of the proof)"
            if passes
            else "one text at a time (batch 1), a prompt of up to 128 tokens and up to 16 written after it"
        )
        eager = ", vLLM without compilation (eager)" if any(row.engine in ("vllm", "vllm-plugin") for row in timed) else ""
        said.append(
            f"Speeds are medians of a few turns, dense and pruned by turns, on the CPU with {threads} "
            f"thread{'' if threads == 1 else 's'}: {work}{eager}. They compare the two models, are not what a server "
            "reaches, and are noisy: a ratio within the difference of the turns says nothing."
        )
    return " ".join(said)


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
    said = [own for own in (_decided(row), _continued(row)) if own]
    if row.max_difference is not None:
        said.append(f"largest difference {row.max_difference:.1e}")
    return "; ".join(said)


def _decided(row: EngineReport) -> str:
    """Say at how many positions the answer is transformers', of those where rounding cannot change it."""
    if row.agreement is None and not row.tokens:
        return ""
    noun = "tokens" if row.texts and row.generated is not None else "answers"
    whole = f" of {row.tokens:,} {noun}" if row.tokens else f" {noun}"
    if row.agreement is None:
        return f"none decided{whole}"
    if row.agreement == 1:
        return f"all {row.decided:,} decided{whole}"
    return f"{round(row.agreement * row.decided):,} of {row.decided:,} decided{whole}"


def _continued(row: EngineReport) -> str:
    if not row.continuations:
        return ""
    whole, same = row.continuations, row.same_continuations
    shown = f"{whole} continuation{'' if whole == 1 else 's'} of {row.new_tokens} tokens"
    if same == whole:
        return f"{shown} {'is' if whole == 1 else 'are'} the same"
    why = " (the rest parts where undecided)" if row.works else ""
    return f"{same} of {shown} {'is' if same == 1 else 'are'} the same{why}"


def _speed(row: EngineReport) -> str:
    dense, pruned = row.dense, row.pruned
    if pruned is None:
        return ""
    parts: list[str] = []
    for name in ("prefill", "decode"):
        after = getattr(pruned, f"{name}_tokens_s")
        if after is not None:
            pair = _pair(dense, f"{name}_tokens_s", after, "tokens/s")
            parts.append(f"{name} {pair}{_spread(dense, pruned, f'{name}_spread')}")
    if pruned.pass_ms is not None:
        parts.append(_pair(dense, "pass_ms", pruned.pass_ms, "ms") + _spread(dense, pruned, "pass_spread"))
    computed = next((note.removeprefix("computed ") for note in row.notes if note.startswith("computed in ")), None)
    return ", ".join(parts if computed is None or not parts else [*parts, computed])


def _spread(dense: SpeedReport | None, pruned: SpeedReport, name: str) -> str:
    """Return the larger spread of the two models' turns, in brackets; nothing where it is not known."""
    known = [own for model in (dense, pruned) if model is not None and (own := getattr(model, name)) is not None]
    return f" (turns differ by {max(known):.0%})" if known else ""


def _pair(dense: SpeedReport | None, name: str, after: float, unit: str) -> str:
    before = None if dense is None else getattr(dense, name)
    if before is None:
        return f"{after:.1f} {unit}"
    faster = before / after if unit == "ms" else after / before
    return f"{before:.1f} to {after:.1f} {unit}, {faster:.2f}x"
