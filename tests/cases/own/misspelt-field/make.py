"""See README.md."""

import json
from pathlib import Path

from tiny import DATA, MODEL, classifier, jsonl

from tests import tasks

classifier()
jsonl()
spec = {"model": str(MODEL.absolute()), "task": tasks.task_of("text-classification", DATA.absolute()), "sparsity": 0.4}
Path("work/spec.json").write_text(json.dumps(spec | {"calibrations": {"samples": 16}}))
