"""See README.md."""

from tiny import classifier, jsonl

classifier()
jsonl(change=lambda row: row | {"label": ("cats", "dogs")[row["label"]]})
