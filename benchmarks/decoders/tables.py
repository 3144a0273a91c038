"""The table of all cells: perplexities against the dense model and against the default, with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.decoders.cells import agreement
from benchmarks.decoders.judging import Numbers
from benchmarks.decoders.ways import DEFAULT, PATTERNS
from pruning_core.tasks.row_forms import Floats

DRAWS = 2000
# What a peer of either kind is compared with, by paired draws of blocks.
COMPARED = {True: "admm-pattern", False: DEFAULT}


def ratio(own: Sequence[Numbers], other: Sequence[Numbers]) -> dict[str, float]:
    """Return a perplexity over another's on the same blocks, with the ends of its 95 % interval.

    Blocks are drawn again with replacement, both models' together. Of several seeds the mean loss of each block counts.
    """
    tokens = own[0]["tokens"]
    mine, theirs = (np.mean([cell["lost"] for cell in cells], axis=0) / tokens for cells in (own, other))
    difference: Floats = mine - theirs
    drawn = np.random.default_rng(0).integers(0, len(difference), (DRAWS, len(difference)))
    low, high = np.quantile(difference[drawn].mean(1), [0.025, 0.975])
    return {name: float(np.exp(end)) for name, end in (("value", difference.mean()), ("low", low), ("high", high))}


def perplexity(cells: Sequence[Numbers]) -> float:
    """Return the perplexity of a text; of several seeds, of their mean loss."""
    return float(np.exp(np.mean([cell["lost"] for cell in cells]) / cells[0]["tokens"]))


def compared(dense: Numbers, cells: Sequence[Numbers], default: Sequence[Numbers]) -> list[Numbers]:
    """Return for each text the figures of a way: against the dense model, and against the default of its kind."""
    found: list[Numbers] = []
    for name, own in dense["texts"].items():
        texts = [cell["texts"][name] for cell in cells]
        right = [cell.get("cloze") for cell in (own, *texts)]
        found.append(
            {
                "text": name,
                "perplexity": perplexity(texts),
                "of_dense": ratio(texts, [own]),
                "of_default": ratio(texts, [cell["texts"][name] for cell in default]) if default else None,
                "agreement": float(np.mean([agreement(own, text) for text in texts])),
                "cloze_dense": None if right[0] is None else float(np.mean(right[0])),
                "cloze": None if None in right else float(np.mean(right[1:])),
            }
        )
    return found


def rows_of(dense: Numbers, cells: Mapping[tuple[str, str], Sequence[Numbers]]) -> list[dict[str, Any]]:
    """Return a row for each way at each setting, with the figures of every text."""
    rows: list[dict[str, Any]] = []
    for (setting, way), own in cells.items():
        default = cells.get((setting, COMPARED[setting in PATTERNS]), ())
        rows.append(
            {
                "setting": setting,
                "way": way,
                "seeds": [cell["seed"] for cell in own],
                "macs": own[0]["macs"],
                "texts": compared(dense, own, default),
                "seconds": own[0]["seconds"],
                **{name: own[0][name] for name in ("tokens", "fingerprint", "width", "repairs") if name in own[0]},
            }
        )
    return rows


def table_of(subject: str, dense: Numbers, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of one subject."""
    table = Table(
        title=f"{subject}: perplexity over the dense model's with its 95 % interval over blocks, drawn for both; below "
        "it over the default's (in brackets where the interval holds 1); agreement of next tokens; cloze items right"
    )
    table.add_column("kept, way")
    table.add_column("MACs", justify="right")
    for name, own in dense["texts"].items():
        table.add_column(f"{name}\n{perplexity([own]):.2f}, {len(own['lost'])} blocks", justify="right")
    table.add_column("seconds", justify="right")
    before = None
    for row in rows:
        if before not in (None, row["setting"]):
            table.add_section()
        before = row["setting"]
        seconds = sum(value for name, value in row["seconds"].items() if name not in ("judge", "all"))
        table.add_row(
            f"{row['setting']}, {row['way']}", f"{row['macs']:.4f}", *(_said(text) for text in row["texts"]), f"{seconds:.0f}"
        )
    return table


def _said(text: Mapping[str, Any]) -> str:
    of = text["of_dense"]
    said = f"{of['value']:.3f} ({of['low']:.3f} to {of['high']:.3f})"
    default = text["of_default"]
    if default is not None:
        apart = default["low"] > 1 or default["high"] < 1
        said += f"\n{default['value']:.3f}" if apart else f"\n({default['value']:.3f})"
    said += f"  {text['agreement']:.1%}"
    return said if text["cloze"] is None else f"{said}  {text['cloze']:.0%}"
