"""Blocks whose attention and FFN stand side by side: their sums, their repair and what they cost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.budgets import kept_macs
from pruning_core.evidence.cache import ActivationCache
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.recovery.streams import Streams
from pruning_core.spec.prune import RecoverySpec
from tests.families import ARCHITECTURES
from tests.oracles import gram_of
from tests.repairs import batches, evidence_of, halves

# Of each block: attention, FFN, and the norm before each.
PLACES = {
    "gpt-neox": ("attention", "mlp", "input_layernorm", "post_attention_layernorm"),
    "phi": ("self_attn", "mlp", "input_layernorm", "input_layernorm"),
    "gptj": ("attn", "mlp", "ln_1", "ln_1"),
    "falcon": ("self_attention", "mlp", "ln_attn", "ln_mlp"),
    "falcon-one-key": ("self_attention", "mlp", "input_layernorm", "input_layernorm"),
    "cohere": ("self_attn", "mlp", "input_layernorm", "input_layernorm"),
}
IN_TURN = ["gpt-neox-in-turn", "falcon-in-turn", "phi3", "olmo2"]
side_by_side = pytest.mark.parametrize("name", PLACES)


def added_by(model, inputs, places):
    """Run the model, and return of each block what it is given, and what its attention and its FFN give."""
    blocks, found = adapt(model).blocks, []
    handles = []
    for block in blocks:
        own = SimpleNamespace()
        found.append(own)

        def entered(_module, args, kwargs, own=own):
            own.given = args[0] if args else kwargs["hidden_states"]

        def gave(_module, _args, output, own=own, *, name):
            values = output if isinstance(output, torch.Tensor) else output[0]
            setattr(own, name, values.clone())  # Falcon adds to it in place

        handles.append(block.register_forward_pre_hook(entered, with_kwargs=True))
        for name, path in zip(("attention", "ffn"), places, strict=True):
            handles.append(
                block.get_submodule(path).register_forward_hook(lambda *args, name=name, gave=gave: gave(*args, name=name))
            )
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return found


@side_by_side
def test_residual_sums_are_what_the_block_is_given_and_what_its_parts_give(name):
    model = ARCHITECTURES[name].build(head="generation")
    adapter, inputs = adapt(model), batches(1)[0].inputs
    found = added_by(model, inputs, PLACES[name][:2])
    with torch.no_grad():
        trace = adapter.trace(inputs)
        hidden = trace.hidden
        for sublayer in adapter.sublayers:
            own, context = found[sublayer.layer], trace.contexts[sublayer.layer]
            ffn = sublayer.signature.kind == "neuron"
            total = sublayer.total(hidden, sublayer.features(hidden, context))
            reference = own.given + own.attention + (own.ffn if ffn else 0)
            real = context.real
            torch.testing.assert_close(sublayer.entered(hidden)[real], own.given[real], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(total[real], reference[real], rtol=1e-4, atol=1e-5)
            norm = sublayer.block.get_submodule(PLACES[name][2 + ffn])
            torch.testing.assert_close(sublayer.read(hidden)[real], norm(own.given)[real], rtol=1e-4, atol=1e-5)
            hidden = sublayer.leave(hidden, total, context)


@side_by_side
def test_the_repair_of_an_ffn_is_told_what_the_dense_block_gives_less_what_the_student_has_so_far(name):
    model = ARCHITECTURES[name].build(head="generation")
    own = batches(1)
    evidence, student = evidence_of(model, own), adapt(clone(model))
    mask = halves(student)
    dense, inputs = evidence.dense, own[0].inputs
    with torch.no_grad(), evidence.states.cache() as cache:
        streams = Streams(evidence, cache, samples=6, first_judge=5)
        student.sublayers[0].slice_(mask.indices(0))
        fit, _ = streams.gather(0, dense.sublayers[0], student.sublayers[0], 0)
        streams.advance(student.sublayers[0], 0)
        student.sublayers[1].slice_(mask.indices(1))
        ffn_fit, _ = streams.gather(1, dense.sublayers[1], student.sublayers[1], 0)

    (whole, *_), (cut, *_) = added_by(model, inputs, PLACES[name][:2]), added_by(student.model, inputs, PLACES[name][:2])
    rows = (inputs["attention_mask"].bool() & (torch.arange(6) < 5)[:, None]).flatten()
    with torch.no_grad():
        block = student.sublayers[1].block
        X = torch.cat([_features(block, PLACES[name], whole.given), torch.ones(6, 12, 1)], -1).flatten(0, 1)[rows]
        # Both read the embeddings, so that nothing but the attention differs.
        B = (whole.attention + whole.ffn - cut.attention).flatten(0, 1)[rows]
        of_attention = whole.attention.flatten(0, 1)[rows]
    C = gram_of(X, B).C  # the streams are kept in float16
    torch.testing.assert_close(ffn_fit.C, C, rtol=1e-2, atol=1e-3 * float(C.abs().max()))
    assert ffn_fit.energy == pytest.approx(float(B.double().square().sum()), rel=2e-3)
    assert fit.energy == pytest.approx(float(of_attention.double().square().sum()), rel=2e-3)


def _features(block, places, given):
    found = []
    mlp = block.get_submodule(places[1])
    last = next(
        own for path in ("dense_4h_to_h", "fc2", "fc_out", "down_proj") if (own := getattr(mlp, path, None)) is not None
    )
    handle = last.register_forward_pre_hook(lambda _module, args: found.append(args[0]))
    mlp(block.get_submodule(places[3])(given))
    handle.remove()
    return found[0]


@side_by_side
def test_the_repair_brings_the_cut_model_nearer_to_the_dense_one(name):
    model = ARCHITECTURES[name].build(head="generation")
    own = batches(8)
    mask = halves(adapt(model))
    errors = []
    for kind in ("none", "weights"):
        student = clone(model)
        prune_and_recover_(
            adapt(student), mask, evidence_of(model, own), RecoverySpec(kind=kind), on_sublayer=lambda _done: None
        )
        with torch.no_grad():
            real = own[0].inputs["attention_mask"].bool()
            errors.append(float((model(**own[0].inputs).logits - student(**own[0].inputs).logits)[real].square().mean()))
    assert errors[1] < 0.7 * errors[0]


def test_a_convolution_behind_the_first_block_is_part_of_both_models_streams():
    model, own = ARCHITECTURES["deberta-v2-xlarge"].build(head="base"), batches(8)
    evidence, mask = evidence_of(model, own), halves(adapt(model))
    assert not evidence.dense.reads_sums
    adapter, inputs = evidence.dense, own[0].inputs
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
        trace = adapter.trace(inputs)
        hidden = trace.hidden
        for sublayer in adapter.sublayers[:2]:
            hidden = sublayer.forward(hidden, trace.contexts[0])
    torch.testing.assert_close(hidden[real], states[1][real], rtol=1e-5, atol=1e-5)
    errors = []
    for kind in ("none", "weights"):
        student = clone(model)
        prune_and_recover_(adapt(student), mask, evidence, RecoverySpec(kind=kind), on_sublayer=lambda _done: None)
        with torch.no_grad():
            found = student(**inputs).last_hidden_state
        errors.append(float((found - states[-1])[real].square().mean()))
    assert errors[1] < 0.7 * errors[0]


def test_a_repair_from_a_file_is_that_from_memory():
    model, own = ARCHITECTURES["gpt-neox"].build(head="generation"), batches()
    mask, found = halves(adapt(model)), []
    for memory in (2**30, 3_000):  # bytes for streams
        student = clone(model)
        evidence = evidence_of(model, own, memory)
        prune_and_recover_(adapt(student), mask, evidence, RecoverySpec(), on_sublayer=lambda _done: None)
        found.append(adapt(student).sublayers[-1].output.weight)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("room", [0, 20, 1000])
def test_an_entry_takes_more_values_than_its_first_ones_where_that_was_said(room, tmp_path):
    cpu = torch.device("cpu")
    with ActivationCache(80, room=room, dtype=torch.float32, device=cpu, scratch=tmp_path) as cache:
        entries = [cache.keep(torch.full((2, 5), float(number)), times=2) for number in range(3)]
        entries[0].write(torch.full((2, 10), 7.0))
        assert [float(entry.read().mean()) for entry in entries] == [7, 1, 2]
        entries[0].write(torch.full((2, 5), 8.0))
        assert entries[0].read().tolist() == torch.full((2, 5), 8.0).tolist()
        assert [float(entry.read().mean()) for entry in entries[1:]] == [1, 2]


@pytest.mark.parametrize("name", [*PLACES, *IN_TURN])
def test_multiply_accumulates_of_a_block_are_those_of_its_units(name):
    model = ARCHITECTURES[name].build(head="generation", attn_implementation="eager")
    adapter, length = adapt(model), 9
    ids = {"input_ids": torch.full((1, length), 7), "attention_mask": torch.ones(1, length, dtype=torch.long)}
    student = adapt(clone(model))
    slice_(student.model, halves(adapter))
    for own in (adapter, adapt(student.model)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            own.block_forward(0, own.trace(ids))
            outside = FlopCounterMode(display=False)
        with torch.no_grad(), outside:
            own.trace(ids)
        groups = own.groups[:2]
        counted = (counter.get_total_flops() - outside.get_total_flops()) / 2
        assert counted == kept_macs(groups, [group.size for group in groups], length)
