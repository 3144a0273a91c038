"""See README.md."""

from tiny import classifier, jsonl

classifier()
jsonl(splits=("train",))
