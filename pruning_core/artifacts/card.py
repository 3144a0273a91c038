"""The model card: what was done, what it cost, and how to load the result. Torch-free."""

from __future__ import annotations

from pruning_core.report import Report
from pruning_core.spec import AUTO_CLASSES, PruneSpec


def model_card(spec: PruneSpec, report: Report) -> str:
    """Write the card as Markdown with a metadata block.

    The base model is named by its last path component only: a server's folders are nobody's business.
    """
    name = spec.model.rstrip("/").rpartition("/")[2] if spec.model.startswith(("/", ".", "~")) else spec.model
    loader = AUTO_CLASSES[spec.task.type]
    latency, quality = report.latency_ms, report.quality
    return f"""---
library_name: transformers
pipeline_tag: {"text-classification" if spec.task.type != "feature-extraction" else "feature-extraction"}
tags: [pruned, coppice, {report.method}]
---

# {name}, pruned by Coppice

Heads and neurons were removed by `{report.method}` (recovery: `{report.recovery}`), without retraining, for task `{report.task}`.

| | dense | pruned | ratio |
| --- | ---: | ---: | ---: |
| parameters | {report.parameters.dense:,} | {report.parameters.pruned:,} | {report.parameters.pruned / report.parameters.dense:.3f} |
| MACs of the blocks | {report.macs.dense:,} | {report.macs.pruned:,} | {report.macs.pruned / report.macs.dense:.3f} |
| bytes of the weights | {report.bytes.dense:,} | {report.bytes.pruned:,} | {report.bytes.pruned / report.bytes.dense:.3f} |
| {quality.metric} ({quality.samples} validation samples) | {quality.dense:.4f} | {quality.pruned:.4f} | {quality.pruned - quality.dense:+.4f} |
| latency, ms (batch {latency.batch}, length {latency.length}, {latency.threads} threads, {latency.device}) | {latency.dense:.2f} | {latency.pruned:.2f} | {latency.speedup:.2f}x faster |

Target: {report.target.metric} {report.target.requested:g}, achieved {report.target.achieved:.4f}. Seed {report.seed}. Calibration: {report.data.samples} samples,
{report.data.tokens:,} tokens, `{report.data.fingerprint}`. Every number is in `report.json`; `manifest.json` has the sha256 of each file.

## Load it

```python
import pruning_core  # from the package coppice; teaches transformers the per-layer widths
from transformers import AutoTokenizer, {loader}

model = {loader}.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
```

Without Coppice installed: `{loader}.from_pretrained(".", trust_remote_code=True)` runs `modeling_coppice.py` of this folder,
which does the same.
"""
