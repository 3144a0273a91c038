"""Report of the ledger of capabilities: what a model could do beside its task, and whether it still can. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen

Verdict = Literal["kept", "lost", "unclear"]
Judgement = Literal[
    "perplexity",
    "agreement",
    "cloze",
    "endings",
    "repetition",
    "similarity",
    "neighbours",
    "retrieval",
    "lm_eval",
]
# How far the models' answers agree: what else a model says may be as good, so that there is no verdict.
WITHOUT_VERDICT: frozenset[Judgement] = frozenset({"agreement", "neighbours"})
# What a measure is, in the words of a table.
TITLES: dict[Judgement, str] = {
    "perplexity": "perplexity",
    "agreement": "next tokens as the dense model's",
    "cloze": "the true continuation among four",
    "endings": "continuations that end, where the dense model's do",
    "repetition": "repeated four-grams in continuations",
    "similarity": "similarities of pairs in the dense model's order",
    "neighbours": "nearest neighbours as the dense model's",
    "retrieval": "first halves that find their second half",
    "lm_eval": "lm-eval",
}


class LedgerRow(Frozen):
    """One capability, judged by both models on the same rows."""

    subject: str
    judged_by: Judgement
    metric: str = Field(default="", description="Of a task of lm-eval.")
    rows: int
    unit: str = Field(description="What a row is.")
    dense: float | None = None
    pruned: float | None = None
    lower_is_better: bool = False
    low: float | None = Field(default=None, description="95 % interval of pruned minus dense, paired.")
    high: float | None = None
    verdict: Verdict | None = Field(
        description="lost: surely worse than the limit allows; kept: surely not; unclear: the rows do not tell; null: shown "
        "without a verdict, since a model that answers otherwise than the dense one may be as good."
    )
    limit: float = Field(
        description="How much worse is still kept: of perplexity, a factor; else a difference, in the metric's own unit."
    )
    reason: str | None = Field(default=None, description="Why there is no figure, no interval or no verdict.")

    @property
    def title(self) -> str:
        """What the row judges, in words."""
        return f"lm-eval, {self.metric}" if self.judged_by == "lm_eval" else TITLES[self.judged_by]


class LedgerReport(Frozen):
    """The ledger of one checkpoint."""

    line: str = Field(description="All of it in one line, such as: kept its task and arithmetic; lost german.")
    rows: tuple[LedgerRow, ...]
    warnings: tuple[str, ...] = ()
    dtype: str = Field(default="float32", description="Data type that both models computed in.")


def ledger_line(task: Verdict, rows: Sequence[LedgerRow]) -> str:
    """Say in one line what was kept and lost.

    A subject has the worst verdict of its rows.

    Args:
        task: The verdict on the task itself.
        rows: The rows.
    """
    worst: dict[str, Verdict] = {"its task": task}
    order: tuple[Verdict, ...] = ("kept", "unclear", "lost")
    for row in rows:
        if row.verdict is None:
            continue
        before = worst.get(row.subject, "kept")
        worst[row.subject] = order[max(order.index(before), order.index(row.verdict))]
    said = {"kept": "kept {}", "lost": "lost {}", "unclear": "can't tell about {}"}
    found: list[str] = []
    for verdict in ("kept", "lost", "unclear"):
        names = [name for name, own in worst.items() if own == verdict]
        if names:
            found.append(said[verdict].format(_listed(names)))
    return "; ".join(found)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
