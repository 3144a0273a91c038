"""Matrices that fuse queries, keys and values, heads that stay, and what configurations say of both."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.arch.parts import Part
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import ModelUnreadable, PruningError
from pruning_core.plugin.per_layer import OwnHeads
from pruning_core.vocabulary.weights import names_by_token, renames_of, write_cut_weights
from tests import tasks, tiny
from tests.families import ARCHITECTURES


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tasks.write_task_data(folder, "text-generation")
    return folder


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
