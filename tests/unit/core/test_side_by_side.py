"""Blocks whose attention and FFN stand side by side, and matrices that fuse queries, keys and values."""

from __future__ import annotations

import copy
import json
import pickle
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.arch.parts import Part
from pruning_core.budgets import kept_macs
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import ModelUnreadable, PruningError
from pruning_core.evidence.cache import ActivationCache
from pruning_core.evidence.calibration import Batch, TokenSet
from pruning_core.evidence.context import Evidence
from pruning_core.evidence.states import DenseStates
from pruning_core.measure import latency_table
from pruning_core.models.load import load_task_model
from pruning_core.plugin.per_layer import OwnHeads
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.recovery.streams import Streams
from pruning_core.spec.prune import LatencySpec, RecoverySpec
from pruning_core.stats.fisher import loss_sum, mask_statistics
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.registry import family_of
from pruning_core.vocabulary.weights import names_by_token, renames_of, write_cut_weights
from tests import tasks, tiny
from tests.families import ARCHITECTURES
from tests.oracles import gram_of, masked

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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tasks.write_task_data(folder, "text-generation")
    return folder


def batches(count=4, n=6, length=12):
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(count):
        ids = torch.randint(5, 60, (n, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, 8:], ids[0, 8:] = 0, 0
        found.append(Batch({"input_ids": ids, "attention_mask": mask}, torch.arange(n) + n * index, None))
    return found


def evidence_of(model, own, memory=2**30):
    adapter = adapt(model)
    rows = sum(len(batch.rows) for batch in own)
    return Evidence(adapter, TokenSet(tuple(own), rows, 0, 0.0, ""), DenseStates(adapter, own, memory), torch.float32)


def halves(adapter):
    """Keep every other unit of each sublayer, and all where more must stay."""
    return Mask(tuple(torch.arange(group.size) % (1 if group.least else 2) == 0 for group in adapter.groups))


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


def test_biases_apart_from_their_matrix_go_with_their_heads():
    model = ARCHITECTURES["deberta"].build()
    student, kept = clone(model), [1, 3]
    slice_(student, Mask(tuple(torch.isin(torch.arange(group.size), torch.tensor(kept)) for group in adapt(model).groups)))
    own, cut = adapt(model).sublayers[0], adapt(student).sublayers[0]
    for name in ("q_bias", "v_bias"):
        whole, left = getattr(own.module, name), getattr(cut.module, name)
        assert left.tolist() == whole.view(4, -1)[kept].flatten().tolist()
    assert len(own.module.q_bias) == tiny.HIDDEN, "the dense model keeps its own"
    assert cut.counts["v_bias"] == cut.width
    gone = sum(p.numel() for p in own.module.parameters()) - sum(p.numel() for p in cut.module.parameters())
    of_output = 2 * own.unit_width * own.hidden
    assert gone + of_output == 2 * own.group.params_per_unit


def test_one_block_for_all_layers_is_one_set_of_units_that_every_layer_pays_for():
    model = ARCHITECTURES["albert"].build()
    adapter, bert = adapt(model), adapt(ARCHITECTURES["bert"].build())
    assert len(adapter.groups) == 2
    for own, other in zip(adapter.groups, bert.groups, strict=False):
        assert (own.times, own.macs_per_unit(10)) == (3, 3 * other.macs_per_unit(10))
        assert own.params_per_unit == other.params_per_unit


def test_the_gradient_of_a_mask_of_a_shared_block_is_the_sum_over_the_layers():
    model, own = ARCHITECTURES["albert"].build().requires_grad_(False), batches(2)
    adapter = adapt(model)
    source = TaskModel(model, None, "text-classification", family_of("text-classification"), Path(), "float32")
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    labelled = [replace(batch, labels=labels) for batch in own]
    found = mask_statistics(
        source,
        adapter,
        labelled,
        loss_sum("text-classification"),
        samples=12,
        dtype=torch.float32,
        keep_gradients=True,
        on_batch=lambda _done: None,
    )
    wanted = [torch.zeros(group.size, dtype=torch.float64) for group in adapter.groups]
    for batch in labelled:
        for row in range(6):
            masks = tuple(torch.ones(group.size, requires_grad=True) for group in adapter.groups)
            with masked(adapter, masks):
                logits = model(**{name: values[row : row + 1] for name, values in batch.inputs.items()}).logits
            loss = torch.nn.functional.cross_entropy(logits, labels[row : row + 1])
            for place, gradient in enumerate(torch.autograd.grad(loss, masks)):
                wanted[place] += gradient.double().square()
    for statistic, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(statistic.fisher, reference, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(statistic.gradients.double().square().sum(0), reference, rtol=1e-3, atol=1e-7)


def test_one_fit_of_a_shared_block_is_to_the_states_of_all_layers():
    model, own = ARCHITECTURES["albert"].build(head="base"), batches(1)
    evidence = evidence_of(model, own)
    student, mask = adapt(clone(model)), halves(evidence.dense)
    block, given, gave = evidence.dense.blocks[0], [], []
    with ExitStack() as stack, torch.no_grad():
        stack.callback(block.register_forward_pre_hook(lambda _module, args: given.append(args[0])).remove)
        out = evidence.dense.sublayers[0].output
        stack.callback(out.register_forward_hook(lambda _module, args, output: gave.append((args[0], output))).remove)
        model(**own[0].inputs)
    with torch.no_grad(), evidence.states.cache() as cache:
        streams = Streams(evidence, cache, samples=6, first_judge=5)
        student.sublayers[0].slice_(mask.indices(0))
        fit, _ = streams.gather(0, evidence.dense.sublayers[0], student.sublayers[0], 0)
    rows = (own[0].inputs["attention_mask"].bool() & (torch.arange(6) < 5)[:, None]).flatten()
    columns = mask.kept[0].repeat_interleave(student.sublayers[0].unit_width)
    X = torch.cat([read.flatten(0, 1)[rows][:, columns] for read, _ in gave])
    B = torch.cat([output.flatten(0, 1)[rows] for _, output in gave])
    assert len(gave) == 3
    assert fit.tokens == len(X)
    C = gram_of(torch.cat([X, torch.ones(len(X), 1)], 1), B).C
    torch.testing.assert_close(fit.C, C, rtol=1e-2, atol=2e-3 * float(C.abs().max()))


def test_the_repair_of_a_shared_block_brings_the_cut_model_nearer_to_the_dense_one():
    model, own = ARCHITECTURES["albert"].build(head="base"), batches(8)
    mask = Mask(tuple(torch.arange(group.size) % 4 != 0 for group in adapt(model).groups))
    real, errors = own[0].inputs["attention_mask"].bool(), []
    for kind in ("none", "weights"):
        student = clone(model)
        prune_and_recover_(
            adapt(student), mask, evidence_of(model, own), RecoverySpec(kind=kind), on_sublayer=lambda _done: None
        )
        with torch.no_grad():
            apart = model(**own[0].inputs).last_hidden_state - student(**own[0].inputs).last_hidden_state
        errors.append(float(apart[real].square().mean()))
    assert errors[1] < 0.9 * errors[0]


def test_a_shared_block_takes_its_time_in_every_layer(tmp_path, monkeypatch):
    model = ARCHITECTURES["albert"].write(tmp_path / "model")
    dense = load_task_model(model, "text-classification", torch.device("cpu"))
    ran = []

    def fastest(forward, _device):
        forward()
        ran.append(forward)
        return 1.0

    monkeypatch.setattr(latency_table, "_fastest", fastest)
    spec = LatencySpec(batch=1, length=8, repeats=3, threads=1)
    found = latency_table.latency_model(dense, adapt(dense.model), spec, None)
    assert [curve[-1][1] for curve in found.curves] == [3.0, 3.0]
    assert len(ran) > 2


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


def test_rows_of_units_are_found_in_every_way_to_fuse_queries_keys_and_values():
    linear = torch.nn.Linear(3, 24, bias=False)
    rows = {
        "two queries, a key and a value for each of three units": (Part(linear, (8,)), [[*range(8, 16)]]),
        "all queries, then keys, then values": (Part(linear, (4, 2, 2)), [[4, 5, 6, 7], [14, 15], [20, 21]]),
        "three matrices of three units": (Part(torch.nn.Linear(3, 18), (2, 2, 2)), [[2, 3], [8, 9], [14, 15]]),
    }
    for what, (part, wanted) in rows.items():
        assert part.rows_of(torch.tensor([1])).tolist() == [row for piece in wanted for row in piece], what
        values = torch.zeros(part.units * sum(part.rows), dtype=torch.long)
        values[part.rows_of(torch.tensor([1]))] = 1
        assert part.per_unit(values).tolist() == [0, sum(part.rows), 0], what


def test_an_attention_that_asks_the_configuration_for_its_heads_finds_its_own_and_all_else_there():
    model = ARCHITECTURES["phi3"].build(head="generation")
    student = clone(model)
    slice_(student, Mask(tuple(torch.arange(group.size) < max(1, group.size // 2) for group in adapt(model).groups)))
    own = adapt(student).sublayers[0].module.config
    assert (own.num_attention_heads, student.config.num_attention_heads) == (2, 4)
    assert own.hidden_size == student.config.hidden_size
    student.set_attn_implementation("eager")
    assert own._attn_implementation == "eager", "what is set later is found, too"
    for copied in (copy.deepcopy(student), pickle.loads(pickle.dumps(student))):
        found = adapt(copied).sublayers[0].module.config
        assert found.num_attention_heads == 2
        copied.config.rms_norm_eps = 0.5
        assert found.rms_norm_eps == 0.5, "the copy reads its own model's configuration"
    assert isinstance(own, OwnHeads)
    assert not isinstance(own.shared, OwnHeads)
    slice_(student, Mask(tuple(torch.ones(group.size, dtype=torch.bool) for group in adapt(student).groups)))
    assert not isinstance(adapt(student).sublayers[0].module.config.shared, OwnHeads), "cut again, it is not wrapped again"


def changed(model, **changes):
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return model


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("falcon", {"num_kv_heads": 4}, r"has 64 rows and not 96; the two belong to different models"),
        ("falcon", {"new_decoder_architecture": False, "multi_query": False}, "has 64 rows and not 96"),
        ("phi3", {"num_key_value_heads": 4}, "has 64 rows and not 96"),
        ("gpt-neox", {"attention_bias": False}, "attention_bias false, and the weights have such biases"),
        ("falcon", {"bias": False}, "bias false, and the weights have such biases"),
        ("falcon-one-key", {"bias": True}, "bias true, and the weights have no such biases"),
    ],
)
def test_a_configuration_of_other_fused_matrices_than_the_files_have_is_refused(name, changes, reason, data, tmp_path):
    model = changed(ARCHITECTURES[name].write_for("text-generation", tmp_path / "model"), **changes)
    spec = tiny.tiny_spec(model, data, task=tasks.task_of("text-generation", data))
    with pytest.raises(ModelUnreadable, match=reason):
        check_local_inputs(spec)


def test_a_configuration_of_one_key_needs_no_number_of_keys():
    config = ARCHITECTURES["falcon-one-key"].build_config(num_kv_heads=4).to_dict()  # as Falcon-7B's has one without meaning
    assert config["num_kv_heads"] == 4
    model = ARCHITECTURES["falcon-one-key"].build(head="generation")
    assert [group.size for group in adapt(model).groups][:2] == [1, 64]


def test_heads_that_stay_are_said_at_submit(data, tmp_path):
    from pruning_core.checks.prediction import predict

    said = {}
    for name in ("olmo2", "falcon-one-key", "gpt-neox"):
        model = ARCHITECTURES[name].write_for("text-generation", tmp_path / name)
        spec = tiny.tiny_spec(model, data, task=tasks.task_of("text-generation", data))
        check_local_inputs(spec)
        said[name] = " ".join(predict(spec).warnings)
    assert "norm over all heads at once" in said["olmo2"]
    assert "share one key and one value" in said["falcon-one-key"]
    assert "heads" not in said["gpt-neox"]


def test_products_in_a_type_that_a_models_own_code_fails_in_are_refused(tmp_path):
    folder = tmp_path / "data"
    tasks.write_task_data(folder, "text-classification")
    model = ARCHITECTURES["deberta"].write(tmp_path / "model")
    task = tasks.task_of("text-classification", folder)
    spec = tiny.tiny_spec(model, folder, task=task, calibration={"samples": 16, "precision": "bfloat16"})
    with pytest.raises(PruningError, match="fail in the code of deberta models") as refused:
        check_local_inputs(spec)
    assert refused.value.param == "calibration.precision"


def test_a_head_that_transformers_renames_is_cut_with_its_vocabulary(tmp_path):
    from safetensors.torch import load_file

    model = ARCHITECTURES["gpt-neox"].build(head="generation")
    model.save_pretrained(tmp_path)
    tiny.write_tokenizer(tmp_path)
    before = load_file(tmp_path / "model.safetensors")
    assert "embed_out.weight" in before, "the files have another name for it than the model"
    rows, kept, out = len(before["embed_out.weight"]), [0, 3, 7], tmp_path / "out"
    out.mkdir()
    write_cut_weights(tmp_path, out, names_by_token(model), rows, kept, renames=renames_of(model))
    after = load_file(out / "model.safetensors")
    for name in ("embed_out.weight", "gpt_neox.embed_in.weight"):
        assert after[name].tolist() == before[name][kept].tolist()
    assert {name for name in before if before[name].shape != after[name].shape} == {
        "embed_out.weight",
        "gpt_neox.embed_in.weight",
    }


def test_a_target_below_the_heads_that_stay_is_refused(data, tmp_path):
    model = ARCHITECTURES["olmo2"].write_for("text-generation", tmp_path / "model")
    target = {"metric": "macs", "keep": 0.2}
    with pytest.raises(PruningError, match="must be kept of this model"):
        check_local_inputs(tiny.tiny_spec(model, data, task=tasks.task_of("text-generation", data), target=target))
