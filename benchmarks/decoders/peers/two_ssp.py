"""2SSP: Sandri, Cunegatti, Iacca 2025, *A Two-Stage Framework for Structured Pruning of LLMs* (arXiv 2501.17771).

Section 3, first stage: the score of an FFN's neuron is the mean over calibration samples of the norm, over tokens, of its
activation; each block keeps the same number of neurons. Second stage: attention sublayers are left out one by one, each time
the one without which the perplexity on calibration text is lowest. Balance of the stages: of N blocks, ``round(N s^(|FFN| /
(alpha |attention|)))`` attentions go, at a sparsity s, sizes in parameters of a block, and alpha = 1.5; the neurons pay the
rest.

As in the authors' code (src/pruning.py), the second stage reads one sequence of 2048 tokens: the first so many of the
calibration samples. Deviation: s is of multiply-accumulates, and the FFNs pay what is left in these.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.decoders.case import Case
from benchmarks.decoders.peers.statistics import gather
from benchmarks.decoders.peers.structure import Structure, best, budget, priced, sizes
from pruning_core.arch.adapter import ModelAdapter, adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.linear import weight_of
from pruning_core.arch.masks import Mask
from pruning_core.evidence.context import Evidence
from pruning_core.machine.precision import products_in
from pruning_core.tasks.batch import Batch

ALPHA = 1.5
_TOKENS = 2048


def choose(case: Case, keep: float) -> tuple[Structure, float]:
    """Return the structure that keeps a share of the multiply-accumulates, and the seconds of its statistics."""
    statistics, seconds = case.once("statistics", lambda: gather(case.evidence))
    dense = case.evidence.dense
    count = attentions_to_drop(len(dense.blocks), 1 - keep, *_parameters(dense))
    neurons = neurons_to_keep(case, keep, count)
    kept = [torch.ones(size, dtype=torch.bool) for size in sizes(dense.groups)]
    for index, group in enumerate(dense.groups):
        if group.kind == "neuron":
            kept[index] = best(statistics.norm(index), neurons)
    for index in least_needed(case, Mask(tuple(kept)), count):
        kept[index] = torch.zeros_like(kept[index])
    return Structure(Mask(tuple(kept))), seconds


def attentions_to_drop(blocks: int, sparsity: float, attention: int, ffn: int) -> int:
    """Return how many attention sublayers the second stage leaves out."""
    return round(blocks * sparsity ** (ffn / attention / ALPHA))


def neurons_to_keep(case: Case, keep: float, dropped: int) -> int:
    """Return the number of neurons of every FFN that the budget has room for beside the attentions that stay."""
    groups, length = case.evidence.dense.groups, case.evidence.calibration.mean_length
    heads = [group for group in groups if group.kind == "head"]
    spent = priced(heads, sizes(heads), length) * (len(heads) - dropped) / len(heads)
    of_all = sum(group.macs_per_unit(length) for group in groups if group.kind == "neuron")
    return int((budget(groups, length, keep) - spent) / of_all)


def least_needed(case: Case, mask: Mask, count: int) -> list[int]:
    """Leave attention sublayers out of the narrowed model, one by one; return their indices."""
    if not count:
        return []
    student = clone(case.dense.model)
    slice_(student, mask)
    adapter = adapt(student)
    batches = first_tokens(case.evidence)
    gone: list[int] = []
    heads = [index for index, own in enumerate(adapter.sublayers) if own.signature.kind == "head"]
    with torch.no_grad(), products_in(case.evidence.dtype, student.device):
        for _ in range(count):
            losses = {index: _loss_without(adapter, [*gone, index], batches) for index in heads if index not in gone}
            gone.append(min(losses, key=lambda index: losses[index]))
    return gone


def first_tokens(evidence: Evidence) -> list[Batch]:
    """Return batches with about 2048 tokens."""
    found, tokens = list[Batch](), 0
    for batch in evidence.calibration.batches:
        found.append(batch)
        tokens += int(batch.real.sum())
        if tokens >= _TOKENS:
            break
    return found


def _loss_without(adapter: ModelAdapter, gone: list[int], batches: list[Batch]) -> float:
    """Return the loss of next tokens while what some output projections give is left out: the logarithm of the perplexity."""
    handles = [
        adapter.sublayers[index].output.register_forward_hook(lambda _module, _args, output: torch.zeros_like(output))
        for index in gone
    ]
    total, counted = 0.0, 0
    try:
        for batch in batches:
            logits = adapter.model(**batch.inputs).logits[:, :-1].float()
            truth = torch.where(batch.real, batch.inputs["input_ids"], -100)[:, 1:]
            total += float(nn.functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="sum"))
            counted += int((truth != -100).sum())
    finally:
        for handle in handles:
            handle.remove()
    return total / counted


def _parameters(dense: ModelAdapter) -> tuple[int, int]:
    """Return the parameters of a block's attention and of its FFN."""
    counts = {
        own.signature.kind: sum(weight_of(linear).numel() for linear in (*own.inputs, own.output))
        for own in dense.sublayers[:2]
    }
    return counts["head"], counts["neuron"]
