"""Peers by the equations of their papers, on matrices small enough to compute them another way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.decoders.case import Case
from benchmarks.decoders.peers import flap, shortgpt, slicegpt, two_ssp
from benchmarks.decoders.peers.statistics import Statistics, Sums, gather
from benchmarks.decoders.peers.structure import Structure, budget, priced, sizes
from benchmarks.decoders.repaired import student_of
from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.linear import weight_of
from pruning_core.arch.masks import Mask
from pruning_core.recovery.sequential import prune_and_recover_


def _inputs_of_outputs(case: Case) -> list[torch.Tensor]:
    """Return what each output projection reads of every real token, by hooks on the whole model."""
    dense = case.evidence.dense
    found: list[list[torch.Tensor]] = [[] for _ in dense.sublayers]
    handles = [
        own.output.register_forward_pre_hook(lambda _module, args, index=index: found[index].append(args[0]))
        for index, own in enumerate(dense.sublayers)
    ]
    for batch in case.evidence.calibration.batches:
        case.dense.model(**batch.inputs)
    for handle in handles:
        handle.remove()
    real = torch.cat([batch.real.flatten() for batch in case.evidence.calibration.batches])
    return [torch.cat([own.flatten(0, 1) for own in reads])[real].double() for reads in found]


def test_statistics_are_those_of_all_real_tokens(case: Case) -> None:
    statistics = gather(case.evidence)
    assert statistics.tokens == case.evidence.calibration.tokens
    for index, reads in enumerate(_inputs_of_outputs(case)):
        torch.testing.assert_close(statistics.mean(index), reads.mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(statistics.variance(index), reads.var(0), rtol=1e-4, atol=1e-8)


class TestFlap:
    def test_a_channel_counts_by_its_fluctuation_and_its_weights(self, case: Case) -> None:
        statistics, dense = gather(case.evidence), case.evidence.dense
        for index, reads in enumerate(_inputs_of_outputs(case)):
            own = dense.sublayers[index]
            expected = reads.var(0) * weight_of(own.output).double().pow(2).sum(0)
            expected = expected**2 if index % 2 == 0 else expected
            torch.testing.assert_close(flap.channel_scores(own, statistics, index), expected, rtol=1e-3, atol=1e-12)

    def test_scores_are_standardised_within_a_sublayer(self, case: Case) -> None:
        own = case.evidence.dense.sublayers[1]
        found = flap.standardised(torch.rand(own.width, dtype=torch.float64), own)
        assert float(found.mean()) == pytest.approx(0, abs=1e-12)
        assert float(found.std()) == pytest.approx(1)

    def test_removed_channels_that_never_move_are_replaced_exactly(self, case: Case) -> None:
        own = case.evidence.dense.sublayers[1]
        kept = torch.arange(own.units) % 3 > 0
        reads = torch.randn(7, own.width, dtype=torch.float64)
        reads[:, ~kept] = torch.randn(1, int((~kept).sum()), dtype=torch.float64)
        W = weight_of(own.output).double()
        bias = flap.replaced(own, reads.mean(0), kept)
        torch.testing.assert_close(reads[:, kept] @ W[:, kept].T + bias, reads @ W.T)

    def test_one_threshold_spends_the_budget(self, case: Case) -> None:
        groups, length = case.evidence.dense.groups, case.evidence.calibration.mean_length
        scores = [torch.rand(group.size, generator=torch.Generator().manual_seed(3)).double() for group in groups]
        mask = flap.above_one_threshold(scores, groups, length, 0.7)
        spent, dearest = priced(groups, mask.counts(), length), max(group.macs_per_unit(length) for group in groups)
        assert budget(groups, length, 0.7) - dearest <= spent <= budget(groups, length, 0.7)
        least = min(float(own[kept].min()) for own, kept in zip(scores, mask.kept, strict=True) if kept.any())
        most = max(float(own[~kept].max()) for own, kept in zip(scores, mask.kept, strict=True) if not kept.all())
        assert least >= most

    def test_the_student_adds_the_means(self, case: Case, tokens: torch.Tensor) -> None:
        decided, _ = flap.choose(case, 0.7)
        student = student_of(case, decided, repair=False).model
        without = student_of(case, Structure(decided.mask), repair=False).model
        dense = case.dense.model(input_ids=tokens).logits
        assert _apart(student(input_ids=tokens).logits, dense) != _apart(without(input_ids=tokens).logits, dense)
        for index, own in enumerate(adapt(student).sublayers):
            torch.testing.assert_close(own.output.bias.double(), decided.biases[index], rtol=1e-5, atol=1e-6)


class TestShortGpt:
    def test_influence_is_one_less_the_cosine(self) -> None:
        nothing = torch.zeros(1, dtype=torch.float64)
        likeness = torch.tensor([0.9, -0.2, 1.0], dtype=torch.float64)
        found = shortgpt.block_influence(Statistics((Sums(nothing, nothing, nothing),), likeness, 1, 1))
        torch.testing.assert_close(found, torch.tensor([0.1, 1.2, 0.0], dtype=torch.float64))

    def test_a_block_that_gives_what_it_reads_goes_first(self, case: Case) -> None:
        model = clone(case.dense.model)
        for own in adapt(model).sublayers[2:4]:
            own.slice_(torch.arange(own.units))
            own.output.weight.zero_()
        changed = _with_model(case, model)
        decided, _ = shortgpt.choose(changed, 0.7)
        assert [count > 0 for count in decided.mask.counts()] == [True, True, False, False, True, True]
        assert len(adapt(student_of(changed, decided, repair=False).model).blocks) == 2


class TestTwoSsp:
    @pytest.mark.parametrize(("sparsity", "count"), [(0.1, 0), (0.2, 1), (0.3, 3), (0.5, 8)])
    def test_attentions_by_the_balance_of_stages(self, sparsity: float, count: int) -> None:
        assert two_ssp.attentions_to_drop(30, sparsity, 884_736, 2_654_208) == count

    def test_neurons_count_by_their_mean_norm_over_samples(self, case: Case) -> None:
        statistics, dense = gather(case.evidence), case.evidence.dense
        norms = torch.zeros(dense.sublayers[1].width, dtype=torch.float64)
        for batch in case.evidence.calibration.batches:
            trace = dense.trace(batch.inputs)
            attended = dense.sublayers[0].forward(trace.hidden, trace.contexts[0])
            for row, real in zip(dense.sublayers[1].features(attended, trace.contexts[0]), batch.real, strict=True):
                norms += torch.linalg.vector_norm(row[real], dim=0)
        torch.testing.assert_close(statistics.norm(1), norms / case.evidence.calibration.samples, rtol=1e-4, atol=1e-6)

    def test_the_attention_that_does_nothing_goes_first(self, case: Case) -> None:
        model = clone(case.dense.model)
        own = adapt(model).sublayers[2]
        own.slice_(torch.arange(own.units))
        own.output.weight.zero_()
        changed = _with_model(case, model)
        # Random models may gain by losing an attention; what changes nothing is then found by the loss alone.
        everything = Mask.full(sizes(changed.evidence.dense.groups))
        batches = two_ssp.first_tokens(changed.evidence)
        losses = [two_ssp._loss_without(adapt(model), [index], batches) for index in (0, 2, 4)]
        assert losses[1] == pytest.approx(two_ssp._loss_without(adapt(model), [], batches), abs=1e-6)
        assert two_ssp.least_needed(changed, everything, 1) == [(0, 2, 4)[losses.index(min(losses))]]

    def test_the_budget_is_met_and_ffns_are_alike(self, case: Case) -> None:
        decided, _ = two_ssp.choose(case, 0.5)
        groups, length = case.evidence.dense.groups, case.evidence.calibration.mean_length
        counts = decided.mask.counts()
        assert len(set(counts[1::2])) == 1
        assert decided.macs(groups, length) <= budget(groups, length, 0.5)
        wider = [count + (at % 2) for at, count in enumerate(counts)]
        assert priced(groups, wider, length) > budget(groups, length, 0.5)

    def test_an_attention_that_is_left_out_alone_adds_nothing(self, case: Case, tokens: torch.Tensor) -> None:
        kept = [torch.ones(size, dtype=torch.bool) for size in sizes(case.evidence.dense.groups)]
        kept[2] = torch.zeros_like(kept[2])
        decided = Structure(Mask(tuple(kept)))
        assert decided.alone == {2}
        found = student_of(case, decided, repair=False).model(input_ids=tokens).logits
        handle = case.evidence.dense.sublayers[2].output.register_forward_hook(lambda _m, _a, out: torch.zeros_like(out))
        expected = case.dense.model(input_ids=tokens).logits
        handle.remove()
        torch.testing.assert_close(found, expected)
        repaired = student_of(case, decided, repair=True).model
        assert not weight_of(adapt(repaired).sublayers[2].output).any()
        dense = case.dense.model(input_ids=tokens).logits
        assert _apart(repaired(input_ids=tokens).logits, dense) < _apart(found, dense)


class TestSliceGpt:
    def test_the_projected_model_is_the_sliced_one(self, case: Case, tokens: torch.Tensor) -> None:
        """Compute the sliced model as the paper writes it: narrow matrices, folded norms, shortcuts between bases."""
        sliced, _ = slicegpt.choose(case, 0.9)
        found = student_of(case, sliced, repair=False).model(input_ids=tokens).logits
        dense = case.evidence.dense
        trace = dense.trace({"input_ids": tokens})
        bases = [sliced.first, *sliced.after]
        z = trace.hidden @ bases[0]
        d = dense.sublayers[0].hidden
        for index, own in enumerate(dense.sublayers):
            Q, after = bases[index], bases[index + 1] if index + 1 < len(bases) else None
            block = clone_of(own)
            block.before = _FoldedNorm(own.before, d)
            for part in block.inputs:
                part.weight = nn.Parameter(part.weight * own.before.weight @ Q)  # W diag(g) Q
            added = _run(block, z, trace.contexts[own.layer])
            stream = z @ Q.T
            z = stream + added if after is None else stream @ after + added @ after
        expected = case.dense.model.lm_head(case.dense.model.model.norm(z))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

    def test_at_full_width_nothing_changes(self, case: Case, tokens: torch.Tensor) -> None:
        dense = case.evidence.dense
        basis = torch.linalg.qr(torch.randn(dense.sublayers[0].hidden, dense.sublayers[0].hidden))[0]
        whole = slicegpt.Sliced(basis, (basis,) * (len(dense.sublayers) - 1))
        found = student_of(case, whole, repair=False).model(input_ids=tokens).logits
        torch.testing.assert_close(found, case.dense.model(input_ids=tokens).logits, rtol=1e-3, atol=1e-3)

    def test_principal_directions_hold_the_most_energy(self) -> None:
        hidden = torch.randn(2, 5, 6) @ torch.diag(torch.tensor([1.0, 5.0, 0.1, 3.0, 0.2, 0.3]))
        real = torch.ones(2, 5, dtype=torch.bool)
        real[1, 3:] = False
        basis = slicegpt.principal([hidden], [real], 2)
        left = torch.linalg.svd(hidden[real])[1][2:].square().sum()
        lost = (hidden[real] - hidden[real] @ basis @ basis.T).square().sum()
        torch.testing.assert_close(lost, left, rtol=1e-4, atol=1e-5)

    def test_macs_are_those_of_the_narrow_matrices(self, case: Case) -> None:
        groups, length, width = case.evidence.dense.groups, 10.0, 20
        hidden, total = groups[0].hidden, 0.0
        for index, own in enumerate(case.evidence.dense.sublayers):
            last = index == len(groups) - 1
            rows = sum(linear.out_features for linear in own.inputs)
            total += length * (rows * width + own.width * (hidden if last else width))
            total += length * width * (hidden if last else width)  # the shortcut
            if own.signature.kind == "head":
                total += 2 * length**2 * own.width
        assert slicegpt.macs_at(groups, length, width) == pytest.approx(total)

    def test_a_share_below_that_of_shortcuts_is_refused(self, case: Case) -> None:
        with pytest.raises(ValueError, match="shortcuts cost more"):
            slicegpt.width_for(case.evidence.dense.groups, 10_000.0, 0.01)


class TestRepair:
    def test_a_mask_alone_is_repaired_by_the_core(self, case: Case, tokens: torch.Tensor) -> None:
        """Both ways must agree: that of the core, and the walk for what the core has no place for."""
        kept = [torch.arange(size) % 4 > 0 if size > 4 else torch.ones(size, dtype=torch.bool) for size in _sizes(case)]
        mask = Mask(tuple(kept))
        student = clone(case.dense.model)
        prune_and_recover_(adapt(student), mask, case.evidence, case.spec.recovery, on_sublayer=lambda _done: None)
        nothing = {0: torch.zeros(case.evidence.dense.sublayers[0].hidden, dtype=torch.float64)}
        walked = student_of(case, Structure(mask, nothing), repair=True).model
        dense = case.dense.model(input_ids=tokens).logits
        own, other = (_apart(model(input_ids=tokens).logits, dense) for model in (student, walked))
        assert other == pytest.approx(own, rel=0.05)

    @pytest.mark.parametrize("choose", [flap.choose, slicegpt.choose])
    def test_the_repair_brings_peers_nearer_to_the_dense_model(self, case: Case, choose) -> None:
        decided, _ = choose(case, 0.8)
        before, after = (_divergence(case, student_of(case, decided, repair=repair).model) for repair in (False, True))
        assert after < before


def clone_of(own):
    """Return a sublayer of a copy of its block, which may be changed."""
    return _Open(own.copied())


class _Open:
    """A sublayer whose norm can be replaced, beside what reads it."""

    def __init__(self, own) -> None:
        self.own, self.inputs, self.before = own, own.inputs, own.before


class _FoldedNorm(nn.Module):
    """An RMSNorm without scales that divides by the dense width, as the authors' code has it."""

    def __init__(self, norm, width: int) -> None:
        super().__init__()
        self.eps, self.width = norm.variance_epsilon, width

    def forward(self, z):
        return z * torch.rsqrt(z.square().sum(-1, keepdim=True) / self.width + self.eps)


def _run(block: _Open, z, context):
    """Run a sublayer whose linears read the narrow stream; return what it adds, in the dense basis."""
    own = block.own
    if own.signature.kind == "head":
        name = own.signature.before
        setattr(own.block, name, block.before)
        module = own.module
        kwargs = {name: value for name, value in context.kwargs.items() if name in ("position_embeddings", "attention_mask")}
        return module(block.before(z), **kwargs)[0]
    return own.module(block.before(z))


def _sizes(case: Case) -> list[int]:
    return sizes(case.evidence.dense.groups)


def _apart(logits, dense) -> float:
    return float((logits - dense).square().mean())


def _divergence(case: Case, model) -> float:
    batch = case.evidence.calibration.batches[-1].inputs
    return _apart(model(**batch).logits, case.dense.model(**batch).logits)


def _with_model(case: Case, model) -> Case:
    evidence = replace(case.evidence, dense=adapt(model))
    return Case(case.spec, case.dense.with_model(model), evidence)
