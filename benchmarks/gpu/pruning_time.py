"""Seconds of scoring and recovery of a BERT-base, beside one forward and one activation-backward pass: `make bench-prune`."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.gpu.latency import bert
from benchmarks.gpu.parts import Emit, Setting
from benchmarks.prune import STAGES, Case
from benchmarks.prune import measure as measure_case


def measure(setting: Setting, emit: Emit) -> None:
    """Measure our defaults, the papers' settings and Kwon's recovery; in the type that is used by default, the best of two."""
    model = bert(setting).write(setting.folder / "bert")
    length = 8 if setting.dry else 60
    _write_rows(setting.folder / "data" / "glue" / "sst2", 2 * _samples(setting), length)
    for precision in ("auto",) if setting.dry else ("auto", "float32"):
        case = Case(
            "bert",
            model,
            shared=setting.folder,
            task="sst2",
            samples=_samples(setting),
            precision=precision,
            device=torch.device(setting.device),
        )
        found = measure_case(case, 2 if precision == "auto" and not setting.dry else 1)
        emit(
            f"forward + backward, {found['dtype']}, {found['tokens']} tokens",
            seconds=float(found["forward_backward_seconds"]),
        )
        for name, own in found["seconds"].items():
            stages = {stage: float(own[stage]) for stage in STAGES if own[stage] > 0}
            emit(f"{name}, {found['dtype']}", **stages, times_the_floor=float(found["ratio"][name]))


def _samples(setting: Setting) -> int:
    return 16 if setting.dry else 1024


def _write_rows(folder: Path, rows: int, length: int) -> None:
    """Write both splits of two classes of random words that the random model's tokenizer knows."""
    import random

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    rng = random.Random(0)  # noqa: S311 - text for a benchmark, no secret
    for split, count in (("train", rows), ("validation", 16)):
        said = [
            " ".join(f"w{rng.randrange(10, 5000)}" for _ in range(rng.randint(length // 2, 2 * length))) for _ in range(count)
        ]
        table = pa.table({"sentence": said, "label": [row % 2 for row in range(count)], "idx": list(range(count))})
        pq.write_table(table, folder / f"{split}.parquet")
