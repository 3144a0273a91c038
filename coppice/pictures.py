"""Pictures for a terminal: the points of a frontier as bars, in characters that any terminal has where it has no others."""

from __future__ import annotations

from rich.text import Text

from pruning_core.report.report import Report

_FEWEST, _MOST = 6, 40  # signs of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_GAP = "  "


def frontier_picture(report: Report, width: int, *, ascii_only: bool) -> list[Text]:
    """Draw quality, and the time of a batch as a share of the dense model's, for the dense model and each point of a frontier.

    Each point was timed in turns with the dense model, so that its time is a share of what the dense model took beside it.

    Args:
        report: A report with a frontier.
        width: Columns of the terminal. Bars shrink with it; below some 40 columns lines are longer than it.
        ascii_only: Whether the terminal has no signs of blocks.

    Returns:
        Lines: a heading, the dense model, and each point, the largest first.
    """
    rows = [("dense", report.quality.dense, 1.0)]
    points = sorted(report.frontier, key=lambda point: -point.macs.pruned)
    rows += [(point.target.asked, point.quality.pruned, 1 / point.latency_ms.speedup) for point in points]
    names = max(len(name) for name, _, _ in rows)
    figures = [(f"{held:.4f}", f"{taken:.0%}") for _, held, taken in rows]
    first, second = (max(len(pair[i]) for pair in figures) for i in range(2))
    room = (width - names - first - second - 2 * len(_GAP) - 2) // 2
    longest = max(_FEWEST, min(_MOST, room))
    most = max(held for _, held, _ in rows), max(taken for _, _, taken in rows)
    heading = f"{report.quality.metric}".ljust(first + 1 + longest)
    lines = [Text.assemble(" " * names + _GAP, (heading, "dim"), _GAP, ("time of a batch", "dim"))]
    for (name, held, taken), (quality_figure, time_figure) in zip(rows, figures, strict=True):
        style = "dim" if name == "dense" else "green"
        lines.append(
            Text.assemble(
                name.ljust(names) + _GAP,
                quality_figure.rjust(first) + " ",
                (_bar(held, most[0], longest, ascii_only=ascii_only), style),
                _GAP,
                time_figure.rjust(second) + " ",
                (_bar(taken, most[1], longest, ascii_only=ascii_only).rstrip(), style),
            )
        )
    return lines


def _bar(value: float, most: float, longest: int, *, ascii_only: bool) -> str:
    """Draw a bar from zero; what is below zero or no number has none."""
    share = value / most if most > 0 and value > 0 else 0.0
    if ascii_only:
        return ("#" * round(share * longest)).ljust(longest)
    eighths = round(share * longest * 8)
    return ("█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")).ljust(longest)
