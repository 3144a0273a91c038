"""Seconds of scoring and recovery of a BERT-base, beside one forward and one activation-backward pass: `make bench-prune`."""

from __future__ import annotations

import random
import traceback
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.gpu.latency import bert
from benchmarks.gpu.parts import Emit, Setting
from benchmarks.prune import STAGES, Case, floor


def measure(setting: Setting, emit: Emit) -> None:
    """Time our defaults, the papers' settings and Kwon's recovery; the best of two rounds in the type that is the default.

    Raises:
        RuntimeError: One of the three failed; the others have their rows.
    """
    model = bert(setting).write(setting.folder / "bert")
    _write_rows(setting.folder / "data" / "glue" / "sst2", 2 * _samples(setting), 8 if setting.dry else 60)
    failed: list[str] = []
    for precision in ("auto",) if setting.dry else ("auto", "float32"):
        rounds = range(2 if precision == "auto" and not setting.dry else 1)
        device, options = torch.device(setting.device), {"shared": setting.folder, "task": "sst2", "samples": _samples(setting)}
        case = Case("bert", model, precision=precision, device=device, **options)
        evidence = case.evidence()
        floor(case.model, evidence)  # warms up what the others find warm
        least = min(floor(case.model, evidence) for _ in range(3))
        dtype = str(evidence.dtype).removeprefix("torch.")
        emit(f"forward + backward, {dtype}, {evidence.calibration.tokens} tokens", seconds=least)
        for name, way in (("our defaults", case.ours), ("papers' settings", case.paper), ("Kwon's recovery", case.kwon)):
            try:
                own = min((way() for _ in rounds), key=lambda stages: sum(stages.values()))
            except Exception as error:  # the others are to be timed
                traceback.print_exc()
                failed.append(f"{name}, {dtype}: {error}")
                continue
            stages = {stage: own[stage] for stage in STAGES if own[stage] > 0}
            emit(f"{name}, {dtype}", **stages, total=sum(own.values()), times_the_floor=sum(own.values()) / least)
    if failed:
        raise RuntimeError("; ".join(failed))


def _samples(setting: Setting) -> int:
    return 16 if setting.dry else 1024


def _write_rows(folder: Path, rows: int, length: int) -> None:
    """Write both splits of two classes of random words that the random model's tokenizer knows."""
    folder.mkdir(parents=True)
    rng = random.Random(0)  # noqa: S311 - text for a benchmark, no secret
    for split, count in (("train", rows), ("validation", 16)):
        said = [
            " ".join(f"w{rng.randrange(10, 5000)}" for _ in range(rng.randint(length // 2, 2 * length))) for _ in range(count)
        ]
        table = pa.table({"sentence": said, "label": [row % 2 for row in range(count)], "idx": list(range(count))})
        pq.write_table(table, folder / f"{split}.parquet")
