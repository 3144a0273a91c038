"""The ledger in words, for pages, cards and the command line. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from pruning_core.report.ledger import LedgerReport, LedgerRow, Verdict

_VERDICTS: dict[Verdict, str] = {"kept": "kept", "lost": "lost", "unclear": "can't tell"}


@dataclass(frozen=True, slots=True)
class LedgerWords:
    """One row of the ledger, as it is shown: what is judged, in short and in full, on how many rows, figures and verdict."""

    subject: str
    short: str
    title: str
    rows: str
    figures: str
    interval: str
    limit: str
    verdict: str


def ledger_words(ledger: LedgerReport | None) -> tuple[LedgerWords, ...]:
    """Say each row; nothing without a ledger."""
    return () if ledger is None else tuple(_words(row) for row in ledger.rows)


def ledger_sentence(ledger: LedgerReport | None) -> str:
    """Return the ledger's line as a sentence; empty without a ledger."""
    return "" if ledger is None or not ledger.line else f"{ledger.line[0].upper()}{ledger.line[1:]}."


def worse_by_limits(row: LedgerRow) -> tuple[float, float, float] | None:
    """Return how much worse the pruned model is, and the ends of the interval, in units of the limit: 1 is the limit.

    Returns:
        None for rows without an interval.
    """
    if row.dense is None or row.pruned is None or row.low is None or row.high is None:
        return None
    unit = (row.limit - 1) * row.dense if row.judged_by == "perplexity" else row.limit
    if unit <= 0:
        return None
    value, low, high = ((own if row.lower_is_better else -own) / unit for own in (row.pruned - row.dense, row.low, row.high))
    return value, min(low, high), max(low, high)


def short_name(row: LedgerRow) -> str:
    """Name a row in a few letters: its subject, and how it is judged where the subject does not say so."""
    return row.subject if row.judged_by in ("endings", "repetition") else f"{row.subject}, {row.judged_by.replace('_', '-')}"


def _words(row: LedgerRow) -> LedgerWords:
    places = 1 if row.judged_by == "perplexity" else 3
    figures = "-" if row.dense is None or row.pruned is None else f"{row.dense:,.{places}f} → {row.pruned:,.{places}f}"
    interval = "-" if row.low is None or row.high is None else f"{row.low:+,.{places}f} to {row.high:+,.{places}f}"
    verdict = "-" if row.verdict is None else _VERDICTS[row.verdict]
    limit = f"{row.limit:g} times" if row.judged_by == "perplexity" else f"{row.limit:g} worse"
    return LedgerWords(
        subject=row.subject,
        short=short_name(row),
        title=row.title,
        rows=f"{row.rows:,} {row.unit}{'' if row.rows == 1 else 's'}",
        figures=figures,
        interval=interval,
        limit="-" if row.verdict is None else limit,
        verdict=verdict if row.reason is None else f"{verdict}: {row.reason}",
    )
