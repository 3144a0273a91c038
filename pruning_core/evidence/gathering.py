"""Gathering the evidence of a run: calibration samples that are drawn or written, and places for hidden states."""

from __future__ import annotations

from array import array
from pathlib import Path

import torch

from pruning_core.arch.adapter import adapt
from pruning_core.arch.verify import verify
from pruning_core.data.rows import Rows
from pruning_core.evidence.calibration import batch_tokens_for, batched, draw, longest_of
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Evidence, generator
from pruning_core.evidence.documents import calibration_blocks
from pruning_core.evidence.familiar import note_on_familiarity
from pruning_core.evidence.states import DenseStates
from pruning_core.evidence.writing import interleaved, write
from pruning_core.kept.piece import packed, unpacked
from pruning_core.kept.statistics import Statistics
from pruning_core.machine.precision import matmul_dtype, products_in
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel

# Rows drawn for each sample, for tasks that join several rows to one sample.
_ROWS_A_BLOCK = 16


def gather_evidence(
    spec: PruneSpec,
    dense: TaskModel,
    train: Rows,
    scratch: Path | None,
    clock: StageClock,
    *,
    statistics: Statistics | None = None,
) -> Evidence:
    """Draw and write the calibration samples, check that the model's structure is what it seems on them, and plan its states.

    Args:
        spec: The request.
        dense: The dense model.
        train: Rows of the training split.
        scratch: Folder for states that do not fit in memory; None: the system's.
        clock: Told of every text that the model has written, in the stage ``calibrate``.
        statistics: Texts that the model wrote in an earlier run are taken from here; None: nothing is kept.
    """
    options, adapter = spec.calibration, adapt(dense.model)
    dtype = torch.float32 if adapter.family.float32 else matmul_dtype(options.precision, dense.device)
    drawn = (2 if options.sampling == "longer" else 1) * options.samples * (_ROWS_A_BLOCK if dense.family.joins_rows else 1)
    rows = draw(train, drawn, generator(spec.seed, "calibration"))
    limit, notes = dense.longest(options.max_length), list[str]()
    if dense.family.joins_rows:
        encoded, notes = calibration_blocks(dense, rows, limit, options.samples, generator(spec.seed, "long documents"))
    else:
        encoded = dense.family.encode(dense, rows, limit)
    chosen = longest_of(encoded.lengths, options.samples)
    texts = round(options.written_share(spec.task.type, paged=dense.pages is not None) * len(chosen))
    length = max(encoded.lengths)
    with clock.stage("calibrate", 1 + texts) as step:
        if texts:
            written = (statistics or Statistics()).found(
                "writing",
                lambda: {"texts": texts, "length": length, "seed": spec.seed, "products": str(dtype)},
                lambda: write(dense, texts, length, generator(spec.seed, "own writing"), step, dtype=dtype),
                pack=lambda found: packed([torch.tensor(own) for own in found]),
                unpack=lambda piece: [array("l", own.tolist()) for own in unpacked(piece)],
            )
            samples = [encoded.columns["input_ids"][index] for index in chosen]
            with products_in(dtype, dense.device):
                notes += note_on_familiarity(dense, spec.task, samples, written)
            encoded = interleaved(encoded, chosen, written)
            chosen = [*range(len(encoded.lengths))]
        batch_tokens = options.batch_tokens or batch_tokens_for(adapter.groups, dense.device, options, dense.entries)
        calibration = batched(encoded, batch_tokens=batch_tokens, chosen=chosen)
        # The longest batch: errors in padding and far positions show most.
        verify(adapter, calibration.batches[-1].to(dense.device).inputs)
    states = DenseStates(adapter, calibration.batches, options.memory_mb * 2**20, scratch)
    return Evidence(adapter, calibration, states, dtype, written=texts, notes=tuple(notes))
