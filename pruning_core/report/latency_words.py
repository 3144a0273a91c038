"""Latency in words, for pages, cards and the command line: how wide the interval of the speed-up is. Torch-free."""

from __future__ import annotations

from pruning_core.report.latency import LatencyReport


def speedup_words(latency: LatencyReport) -> str:
    """Give the speed-up with its interval, such as "1.94x as fast, between 1.91 and 1.97 (97 %, 6 turns)"."""
    plain = f"{latency.speedup:.2f}x as fast"
    return f"{plain}, {interval_of_speedup(latency)}" if latency.interval is not None else plain


def interval_of_speedup(latency: LatencyReport) -> str:
    """Give the interval of the speed-up alone, and why it is wide where time ran out; empty for earlier reports."""
    found = latency.interval
    if found is None:
        return ""
    said = f"between {found.low:.2f} and {found.high:.2f} ({100 * found.confidence:.0f} %, {latency.repeats} turns"
    return f"{said}; a minute was up)" if latency.stopped == "seconds" else f"{said})"
