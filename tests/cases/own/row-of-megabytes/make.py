"""See README.md."""

import json

from tiny import DATA, classifier, jsonl

classifier()
jsonl()
with (DATA / "train.jsonl").open("a") as file:
    file.write(json.dumps({"text": "word1 " * 800_000, "label": 0}) + "\n")
