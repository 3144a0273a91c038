"""The form's controls of what no schema makes a control of: slices, further evaluation sets, and the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from app.web.forms import Form, listed, number, pairs
from pruning_core.spec.evaluation import MOST_SETS
from pruning_core.spec.ledger import LedgerSpec
from pruning_core.spec.tasks import KINDS, Reads

# Of one further set, in the form's order.
_OF_SETS = ("name", "data", "split", "type", "metric", "max_samples", "text_column", "label_column", "config", "revision")
# Items of a ledger that says nothing of them.
ITEMS: int = LedgerSpec.model_fields["items"].default
_COLUMNS = ("text_column", "label_column")
_POINTER = re.compile(r"/evaluation/(?:(slices)|also/(\d+)(/.*)?|ledger(?:/(texts|lm_eval|items))?)(?:/.*)?")


def sets_of(form: Form) -> list[dict[str, str]]:
    """Return the further sets that are filled in, each by the names of its controls."""
    rows = [{field: form.one(f"also.{place}.{field}").strip() for field in _OF_SETS} for place in range(MOST_SETS)]
    return [row for row in rows if any(row.values())]


def compacted(form: Form) -> Form:
    """Return a form whose further sets stand without gaps, as they do in the body: what is wrong is told by their places."""
    others = {name: values for name, values in form.values.items() if not name.startswith("also.")}
    return Form({**others, **_shown(sets_of(form))})


def evaluation_of(form: Form, reads: Reads) -> dict[str, Any]:
    """Return the fields of ``evaluation`` that these controls stand for; those left alone are left out.

    Args:
        form: The form, compacted.
        reads: What the task reads.
    """
    found: dict[str, Any] = {}
    if slices := [line.strip() for line in form.one("slices").splitlines() if line.strip()]:
        found["slices"] = slices
    if sets := sets_of(form):
        found["also"] = [_set(row, reads) for row in sets]
    ledger = {name: text for name in ("texts", "lm_eval", "items") if (text := form.one(f"ledger.{name}").strip())}
    if form.one("ledger") or not ledger.keys().isdisjoint(("texts", "lm_eval")):
        readers = {"texts": pairs, "lm_eval": str, "items": number}
        found["ledger"] = {name: readers[name](text) for name, text in ledger.items()} or True
    return found


def columns_of(reads: Reads, names: str, label: str) -> dict[str, Any]:
    """Return the columns that a list of names, separated by commas, and a label stand for."""
    parts = listed(names)
    match reads:
        case "image":
            found: dict[str, Any] = {"image": ", ".join(parts)}
        case "text" | "words":
            found = {"text": parts}
        case _:
            assert_never(reads)
    return found | ({"label": label} if label else {})


def _set(row: Mapping[str, str], reads: Reads) -> dict[str, Any]:
    found: dict[str, Any] = {name: text for name, text in row.items() if text and name not in _COLUMNS}
    if "max_samples" in found:
        found["max_samples"] = number(found["max_samples"])
    if row["text_column"] or row["label_column"]:
        kind = row["type"]
        found["columns"] = columns_of(KINDS[kind].reads if kind in KINDS else reads, row["text_column"], row["label_column"])
    return found


def shown(evaluation: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what the controls send where they show a spec's ``evaluation``, as it was dumped."""
    ledger = evaluation.get("ledger")
    texts: Mapping[str, str] = (ledger or {}).get("texts") or {}
    return {
        "slices": ["\n".join(evaluation.get("slices", ()))],
        "ledger": ["on"] if ledger else [],
        "ledger.texts": ["\n".join(f"{name}={place}" for name, place in texts.items())],
        "ledger.lm_eval": [(ledger or {}).get("lm_eval") or ""],
        "ledger.items": [str(ledger["items"]) if ledger and ledger["items"] != ITEMS else ""],
        **_shown([_row(own) for own in evaluation.get("also", ())]),
    }


def _row(own: Mapping[str, Any]) -> dict[str, str]:
    columns: Mapping[str, Any] = own.get("columns") or {}
    found = {name: "" if own.get(name) is None else str(own[name]) for name in _OF_SETS if name not in _COLUMNS}
    text = columns.get("image") or ", ".join(columns.get("text") or ())
    return found | {"text_column": text, "label_column": columns.get("label") or ""}


def _shown(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    return {f"also.{place}.{field}": [text] for place, row in enumerate(rows) for field, text in row.items()}


def control_of(pointer: str) -> str | None:
    """Return the control that a place in the body is of; None where it is another's."""
    found = _POINTER.fullmatch(pointer)
    if found is None:
        return None
    slices, place, inner, ledger = found.groups()
    if slices:
        return "slices"
    if place is None:
        return f"ledger.{ledger}" if ledger else "ledger"
    field = (inner or "/name").split("/")[1:]
    if field[0] == "columns":
        return f"also.{place}.{'label_column' if field[1:2] == ['label'] else 'text_column'}"
    return f"also.{place}.{field[0]}"


def labels() -> Iterator[tuple[str, str]]:
    """Yield the names of the controls as the form shows them, for a summary of what is wrong."""
    yield from (("slices", "Slices by columns"), ("ledger", "Ledger"), ("ledger.texts", "Texts of the ledger"))
    yield from (("ledger.lm_eval", "Tasks of lm-eval"), ("ledger.items", "Items"))
    named = {"max_samples": "rows", "text_column": "input columns", "label_column": "label column", "config": "configuration"}
    for place in range(MOST_SETS):
        yield from ((f"also.{place}.{field}", f"Set {place + 1}: {named.get(field, field)}") for field in _OF_SETS)
