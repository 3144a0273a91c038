"""The tables of ``make bench-engines``, one a part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def show_decoder(rows: Sequence[Row], console: Console) -> None:
    """Print two tables: agreement and speed."""
    _show_agreement("Agreement with transformers in float32", rows, console, by="decided")
    timed = [row for row in rows if row.get("speedup")]
    columns = [name for phase in ("prefill", "decode") for name in (f"{phase} tokens/s", "speed-up", "spread of turns")]
    table = Table("engine", *columns, title="Dense and pruned, in turns")
    for row in timed:
        cells = [
            cell
            for phase in ("prefill", "decode")
            for cell in (
                f"{row['dense'][f'{phase}_tokens_s']:.1f} to {row['pruned'][f'{phase}_tokens_s']:.1f}",
                f"{row['speedup'].get(phase, float('nan')):.2f}x",
                " and ".join(f"{row[side][f'{phase}_spread']:.0%}" for side in ("dense", "pruned")),
            )
        ]
        table.add_row(row["engine"], *cells)
    console.print(table)


def _show_agreement(title: str, rows: Sequence[Row], console: Console, *, by: str) -> None:
    table = Table(
        "engine", "version", "computes in", "works", "texts", "positions", by, "agree", "largest difference", title=title
    )
    for row in rows:
        works = "yes" if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        counts = [str(row.get(name) or "") for name in ("texts", "tokens", "decided")]
        agree, apart = row.get("agreement"), row.get("max_difference")
        figures = ["" if agree is None else f"{agree:.1%}", "" if apart is None else f"{apart:.1e}"]
        table.add_row(row["engine"], row.get("version") or "", row.get("computed") or "", works, *counts, *figures)
    console.print(table)


def show_constraints(rows: Sequence[Row], console: Console) -> None:
    """Print what the shapes of engines cost."""
    table = Table("shapes of", "FFN widths", "groups kept", "MACs", "perplexity", "x dense", "x per_layer", title="Constraints")
    free = next((row["pruned"] for row in rows if row["shapes"] == "per_layer"), None)
    for row in rows:
        step = "" if row["step"] is None else f" (steps of {row['step']})"
        groups = f"{row['groups']} of {row['dense_groups']}"
        beside = "" if free is None else f"{row['pruned'] / free:.3f}"
        perplexities = f"{row['dense']:.2f} to {row['pruned']:.2f}"
        widths = "{} to {}".format(*row["widths"])
        table.add_row(row["shapes"], widths + step, groups, f"{row['macs']:.3f}", perplexities, f"{row['ratio']:.3f}", beside)
    console.print(table)


def show_latency(rows: Sequence[Row], console: Console) -> None:
    """Print what was asked for, predicted and measured."""
    columns = ("phase", "asked for", "predicted", "measured", "MACs", "perplexity", "table, s", "job, s")
    table = Table(*columns, title="Shares of the latency in vLLM")
    for row in rows:
        if "reason" in row:
            table.add_row(row["phase"], f"{row['keep']:g}", row["reason"])
            continue
        shares = [f"{row[name]:.3f}" for name in ("predicted", "achieved", "macs")]
        seconds = [f"{row[name]:.0f}" for name in ("profile_seconds", "seconds")]
        table.add_row(row["phase"], f"{row['keep']:g}", *shares, f"{row['dense']:.2f} to {row['pruned']:.2f}", *seconds)
    console.print(table)


def show_encoder(rows: Sequence[Row], console: Console) -> None:
    """Print the encoder's rows."""
    table = Table(
        "model", "kept", "engine", "version", "works", "largest difference", "dense ms", "pruned ms", "speed-up", title="MiniLM"
    )
    for row in rows:
        works = "yes" if row["status"] == "ok" else f"{row['status']}: {row['reason']}"
        apart = "" if row["max_difference"] is None else f"{row['max_difference']:.1e}"
        times = ["" if row[name] is None else f"{row[name]['pass_ms']:.1f}" for name in ("dense", "pruned")]
        faster = f"{row['speedup']['pass']:.2f}x" if "pass" in row["speedup"] else ""
        kept = f"{row['kept']:.1%} ({row['metric']})"
        table.add_row(row["model"], kept, row["engine"], row["version"] or "", works, apart, *times, faster)
    console.print(table)
