"""Sentence embeddings for a search: prune, then ask both models for the nearest texts, and count how often they agree.

embeddings.py MODEL TEXTS OUT      MODEL: a sentence encoder; TEXTS: a folder of rows with "text"
"""

import json
import sys
from pathlib import Path

from sentence_transformers import SentenceTransformer

from coppice.local import prune

model, texts, out = sys.argv[1:]
report = prune(
    {
        "model": model,
        "task": {"type": "feature-extraction", "dataset": texts, "columns": {"text": ["text"]}, "metric": "cosine"},
        "target": {"metric": "macs", "keep": 0.6},
        "artifacts": {"layout": "stock"},
    },
    out,
    on_progress=lambda now: print(f"{now.fraction:4.0%} {now.stage}", file=sys.stderr),
)
print(f"cosine to the dense embeddings {report.quality.pruned:.3f}, {report.latency_ms.speedup:.2f} times as fast")

rows = [json.loads(line)["text"] for line in (Path(texts) / "validation.jsonl").read_text().splitlines()][:300]
queries, corpus = rows[:50], rows[50:]
nearest = []
for folder in (model, out):
    encoder = SentenceTransformer(folder)
    nearest.append((encoder.encode(queries) @ encoder.encode(corpus).T).argmax(axis=1))
print(f"{(nearest[0] == nearest[1]).mean():.0%} of {len(queries)} queries find the same text first")
