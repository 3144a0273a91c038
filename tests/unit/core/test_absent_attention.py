"""Layers without attention: which may lack it, what the search makes of it, and what computes, loads and is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from pydantic import ValidationError

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.arch.structure import structure_of
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.arch.verify import verify
from pruning_core.artifacts.engines import stacks
from pruning_core.budgets import Budget, CurveBudget, budget_for
from pruning_core.checks.request import check_checkpoint, check_local_inputs
from pruning_core.engines.limits import ENGINES, Limits, limits_of
from pruning_core.errors import ModelUnreadable, TargetUnreachable, UnsupportedArchitecture
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.measure.engine_table import Stack, model_from, predicted_share, shapes_of
from pruning_core.measure.latency_table import latency_model
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.search.allowed import search_allowed
from pruning_core.spec.artifacts import ArtifactSpec
from pruning_core.spec.prune import LatencySpec
from pruning_core.spec.targets import KeepTarget
from tests import tiny
from tests.engines import weaken_attention
from tests.oracles import masked
from tests.unit.core.test_engine_table import _groups as layers_of
from tests.unit.core.test_engine_table import _table as table_of
from tests.unit.core.test_serve import LLAMA, alone, config_of, spec_of, write_llama

LAYERS, GONE = 4, 2
# Without the share of the output energy, an attention that adds nearly nothing is worth nearly nothing.
DROPPING = {"name": "fisher-cg", "representation": 0.0, "drop_attention": True}
FAMILIES = {
    "llama": (transformers.LlamaConfig, {"attention_bias": True}),
    "mistral": (transformers.MistralConfig, {"sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, {}),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weaken_attention(write_llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=LAYERS), layer=GONE)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_jsonl(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def dropped(llama: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dropped") / "bundle"
    run(spec_of(llama, texts, ["transformers"], method=DROPPING), out, device="cpu")
    return out


def build(family: str = "llama"):
    config_class, more = FAMILIES[family]
    torch.manual_seed(0)
    sizes = {"vocab_size": 67, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "pad_token_id": 0}
    model = transformers.AutoModelForCausalLM.from_config(
        config_class(**sizes, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, eos_token_id=3, **more)
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.2)
            elif name.endswith("bias") and "o_proj" not in name:  # the bias of an output goes with its attention
                parameter.normal_(std=0.1)
    return model


def without(model, *layers: int):
    groups = adapt(model).groups
    return Mask(tuple(torch.full((own.size,), own.kind != "head" or own.layer not in layers) for own in groups))


def inputs() -> dict[str, torch.Tensor]:
    real = torch.ones(2, 9, dtype=torch.long)
    real[0, :3] = 0  # padding stands in front where texts are continued
    ids = torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(1)) * real
    return {"input_ids": ids, "attention_mask": real}


# --- what may be absent -----------------------------------------------------------------------------------------------


def test_each_engine_says_from_which_layer_on_and_the_first_always_has_one():
    assert {name: engine.absent_from for name, engine in ENGINES.items()} == dict.fromkeys(ENGINES, 1)
    heads = UnitGroup(0, "head", 4, 8, 32, 1, 1)
    neurons = UnitGroup(3, "neuron", 64, 1, 32, 1, 1)
    for whole, present in ((True, (4,)), (False, (1, 2, 3, 4))):
        limits = Limits(16, whole, absent_from=1)
        assert limits.counts(heads) == present
        assert limits.counts(replace(heads, layer=1)) == (0, *present)
        assert limits.counts(neurons) == (16, 32, 48, 64), "an FFN is never absent"
        assert Limits(16, whole).counts(replace(heads, layer=1)) == present


def test_limits_have_it_where_it_is_asked_for_alone():
    def of(*engines: str, config=LLAMA, drops: bool = True) -> Limits | None:
        options = ArtifactSpec.model_validate({"layout": "serve", "engines": engines})
        return limits_of(options, config, drops_attention=drops)

    assert of("vllm", "mlx") == Limits(256, whole_attention=True, absent_from=1)
    assert of("vllm", "mlx", drops=False) == Limits(256, whole_attention=True)
    window = LLAMA | {"model_type": "mistral", "sliding_window": 64}
    assert of("llama.cpp", config=window, drops=False) is not None
    with pytest.raises(UnsupportedArchitecture, match=r"window of tokens.*leave method\.drop_attention out") as refused:
        of("llama.cpp", config=window)
    assert refused.value.param == "method.drop_attention"


def test_a_request_for_it_elsewhere_is_refused_at_once(llama: Path, texts: Path, tiny_bert: Path, tiny_sst2: Path):
    for layout in ("per_layer", "stock"):
        with pytest.raises(ValidationError, match=r"artifacts\.layout serve alone, and this is \w+: take serve") as refused:
            spec_of(llama, texts, [], artifacts={"layout": layout}, method=DROPPING)
        assert [error["loc"] for error in refused.value.errors()] == [("method", "drop_attention")]
    served = {"layout": "serve", "engines": ["vllm"]}
    with pytest.raises(UnsupportedArchitecture, match="vLLM: it takes layers that differ of llama, mistral, qwen2 alone"):
        check_local_inputs(tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts=served, method=DROPPING))


def test_a_target_that_only_absent_attention_reaches_is_accepted_with_it_and_the_option_is_told_without(
    llama: Path, texts: Path
):
    low = 0.3
    with pytest.raises(TargetUnreachable, match=r"set method\.drop_attention, or keep more"):
        check_local_inputs(spec_of(llama, texts, ["vllm"], keep=low))
    check_local_inputs(spec_of(llama, texts, ["vllm"], keep=low, method=DROPPING))


# --- the search -------------------------------------------------------------------------------------------------------


def layers(count: int = 3) -> tuple[UnitGroup, ...]:
    pair = (UnitGroup(0, "head", 2, 8, 32, 100, 100), UnitGroup(0, "neuron", 64, 1, 32, 10, 10))
    return tuple(replace(own, layer=layer) for layer in range(count) for own in pair)


@pytest.mark.parametrize("whole", [True, False])
def test_the_search_leaves_out_an_attention_where_that_pays(whole: bool):
    groups, limits = layers(), Limits(16, whole, absent_from=1)
    importance = [torch.full((own.size,), 1.0 if own.kind == "head" else 0.1) for own in groups]
    importance[4] = torch.full((2,), 0.01)
    budget = Budget(tuple(100.0 if own.kind == "head" else 10.0 for own in groups), 2200.0, 100.0)
    assert search_allowed(importance, groups, budget, limits).counts()[::2] == [2, 2, 0]
    assert 0 not in search_allowed(importance, groups, budget, Limits(16, whole)).counts()
    importance[0], importance[4] = importance[4], importance[0]
    assert search_allowed(importance, groups, budget, limits).counts()[0] > 0, "the first layer keeps it"


def test_curves_may_offer_no_unit_too():
    groups, limits = layers(2), Limits(16, whole_attention=True, absent_from=1)
    importance = [torch.full((own.size,), 1.0) for own in groups]
    importance[2] = torch.full((2,), 0.01)
    heads, neurons = ((0, 0.0), (1, 1.0), (2, 1.5)), ((0, 0.0), (16, 1.0), (64, 3.0))
    found = search_allowed(importance, groups, CurveBudget((heads, neurons, heads, neurons), 7.5), limits)
    assert found.counts() == [2, 64, 0, 64]


def test_the_smallest_model_is_one_without_attentions():
    groups, target = layers(), KeepTarget(metric="macs", keep=0.1)
    numbers = {"total_params": 10_000, "length": 1.0}
    with pytest.raises(TargetUnreachable):
        budget_for(target, groups, **numbers)
    floors = [Limits(16, whole_attention=False, absent_from=1).floor(group) for group in groups]
    assert floors == [1, 0, 0, 0, 0, 0]
    assert budget_for(target, groups, **numbers, floors=floors).limit > 0


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_attentions_computes_what_masks_say(family: str):
    model = build(family)
    mask, student = without(model, 1, 3), clone(model)
    mask.kept[4][0] = False  # another attention has one group less
    slice_(student, mask)
    with torch.no_grad(), masked(adapt(model), tuple(flags.float() for flags in mask.kept)):
        expected = model(**inputs()).logits
    with torch.no_grad():
        found = student(**inputs()).logits
        assert (model(**inputs()).logits - expected).abs().max() > 0.1, "the attentions must matter"
    real = inputs()["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], rtol=1e-4, atol=1e-4)
    gone = [name for name in dict(model.named_parameters()) if name not in dict(student.named_parameters())]
    assert {name.rpartition("layers.")[2].split(".")[0] for name in gone} == {"1", "3"}
    assert all(".self_attn." in name or ".input_layernorm." in name for name in gone)
    groups = adapt(student).groups
    assert [(own.layer, own.kind) for own in groups if own.layer in (1, 3)] == [(1, "neuron"), (3, "neuron")]
    verify(adapt(student), inputs())


def test_a_layer_that_must_have_its_attention_is_not_cut():
    model = build()
    with pytest.raises(ValueError, match="layer 1 of a llama keeps its FFN and must keep a head"):
        slice_(clone(model), without(model, 0))
    bert = tiny.build_model("bert")
    with pytest.raises(ValueError, match="layer 2 of a bert"):
        slice_(clone(bert), without(bert, 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_text_is_the_same_with_a_cache_of_any_kind_and_without(family: str):
    model = build(family)
    slice_(model, without(model, 1, 3))

    def written(given=None, **options):
        return model.generate(**(given or inputs()), max_new_tokens=10, min_new_tokens=10, do_sample=False, **options)

    plain = written(use_cache=False)
    assert torch.equal(written(), plain)
    assert torch.equal(written(cache_implementation="static"), plain)
    assert torch.equal(written(num_beams=3), written(num_beams=3, use_cache=False)), "beams reorder the cache"
    one = {name: values[1:] for name, values in inputs().items()}
    # Rejected guesses are cut off the cache again.
    assert torch.equal(written(one, prompt_lookup_num_tokens=2), written(one, use_cache=False))
    cache = model(**inputs(), use_cache=True).past_key_values
    assert [own.is_initialized for own in cache.layers] == [True, False, True, False]


# --- the bundle -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_bundle_says_it_in_the_words_of_each_reader(dropped: Path):
    config, report = config_of(dropped), json.loads((dropped / "report.json").read_text())
    assert [layer["kept_heads"] for layer in report["layers"]] == [2, 2, 0, 2]
    assert config["block_configs"][GONE]["attention"] == {"no_op": True}
    assert config["per_layer_config"][str(GONE)] | {"intermediate_size": 0} == {
        "skip": ["attention"],
        "num_attention_heads": 0,
        "intermediate_size": 0,
    }
    path = f"model.layers.{GONE}"
    assert config["coppice"]["absent"] == {f"{path}.self_attn": f"{path}.input_layernorm"}
    assert config["model_type"] == "nemotron-nas"
    assert f"layer {GONE + 1} has no attention: 3 of 4 layers keep keys and values" in report["warnings"]
    assert "1 whole attention" in (dropped / "README.md").read_text()
    facts = read_checkpoint(dropped)
    assert not [name for name in facts.shapes if name.startswith((f"{path}.self_attn", f"{path}.input_layernorm"))]
    assert report["parameters"]["pruned"] == facts.parameters
    assert abs(report["target"]["achieved"] - report["target"]["requested"]) <= report["target"]["tolerance"]


def test_the_sublayer_before_an_absent_attention_stands_in_for_it(dropped: Path):
    layers = json.loads((dropped / "report.json").read_text())["layers"]
    assert layers[GONE]["attention"]["status"] == "skipped"
    before = layers[GONE - 1]["ffn"]
    assert before["residual_after"] <= before["residual_before"]


def test_it_loads_as_a_language_model_and_as_its_base_and_is_saved_again(dropped: Path, tmp_path: Path):
    model = transformers.AutoModelForCausalLM.from_pretrained(dropped)
    base, info = transformers.AutoModel.from_pretrained(dropped, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    ids = inputs()["input_ids"]
    with torch.no_grad():
        assert torch.equal(model.model(ids).last_hidden_state, base(ids).last_hidden_state)
    model.save_pretrained(tmp_path / "again")
    assert config_of(tmp_path / "again")["coppice"] == config_of(dropped)["coppice"]
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.long
def test_stock_transformers_loads_it_by_its_own_code_or_refuses_it(dropped: Path):
    trusted = alone(dropped, ", trust_remote_code=True")
    assert trusted.returncode == 0, trusted.stderr[-2000:]
    assert int(trusted.stdout.split()[1]) == json.loads((dropped / "report.json").read_text())["parameters"]["pruned"]
    assert "trust_remote_code=True" in alone(dropped).stderr
    by_name = alone(dropped, auto_class="LlamaForCausalLM")
    assert by_name.returncode != 0, "it would fill the attention at random"
    assert "is a per-layer attribute" in by_name.stderr


@pytest.mark.long
def test_a_bundle_that_lacks_attention_and_nothing_else_is_refused_by_name_too(dropped: Path, tmp_path: Path):
    model = transformers.AutoModelForCausalLM.from_pretrained(dropped)
    model.save_pretrained(tmp_path)
    config = config_of(tmp_path)
    config["per_layer_config"] = {str(GONE): {"skip": ["attention"], "num_attention_heads": 0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    by_name = alone(tmp_path, auto_class="LlamaForCausalLM")
    assert by_name.returncode != 0
    assert "'num_attention_heads' is a per-layer attribute" in by_name.stderr


@pytest.mark.parametrize("layout", ["serve", "per_layer"])
@pytest.mark.long
def test_a_bundle_without_an_attention_is_pruned_again(dropped: Path, texts: Path, tmp_path: Path, layout: str):
    more = {"method": DROPPING} if layout == "serve" else {"artifacts": {"layout": "per_layer"}}
    report = run(spec_of(dropped, texts, ["transformers"], keep=0.8, **more), tmp_path / "out", device="cpu")
    assert report.parameters.dense == read_checkpoint(dropped).parameters
    lacking = report.layers[GONE]
    assert (lacking.dense_heads, lacking.kept_heads) == (0, 0)
    assert not [said for said in report.warnings if f"layer {GONE + 1} has no attention" in said], "that is no news"
    assert f"model.layers.{GONE}.self_attn" in config_of(tmp_path / "out")["coppice"]["absent"]
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").num_parameters() == report.parameters.pruned


def test_a_bundle_without_an_attention_has_no_stock_form(dropped: Path, texts: Path):
    with pytest.raises(UnsupportedArchitecture, match="has widths of its own"):
        check_local_inputs(spec_of(dropped, texts, [], artifacts={"layout": "stock"}))


@pytest.mark.slow
@pytest.mark.parametrize("source", ["dense", "bundle"])
@pytest.mark.long
def test_paged_weights_are_cut_and_read_as_others(llama: Path, dropped: Path, texts: Path, tmp_path: Path, source: str):
    model = llama if source == "dense" else dropped
    same = {"samples": 64, "max_length": 32, "batch_tokens": 256, "self_written": 0}  # paged models write no texts
    spec = spec_of(model, texts, ["transformers"], keep=0.75, method=DROPPING, calibration=same)
    paged = run(spec.but(memory={"weights": "paged"}), tmp_path / "paged", device="cpu")
    resident = run(spec, tmp_path / "resident", device="cpu")
    assert [own.kept_heads for own in paged.layers] == [own.kept_heads for own in resident.layers]
    assert paged.layers[GONE].kept_heads == 0
    assert paged.quality.pruned == pytest.approx(resident.quality.pruned, rel=1e-3)


@pytest.mark.long
def test_units_that_are_priced_together_may_go_together(llama: Path, texts: Path, tmp_path: Path):
    method = DROPPING | {"interactions": "kronecker"}
    report = run(spec_of(llama, texts, ["vllm-plugin"], method=method), tmp_path / "out", device="cpu")
    assert report.layers[GONE].kept_heads == 0
    assert report.acceptance is not None


def test_a_configuration_and_weights_that_differ_on_it_are_refused(llama: Path, dropped: Path, tmp_path: Path):
    def written(model: Path, name: str, change) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for path in (*model.glob("*.safetensors"), *model.glob("tokenizer*")):
            (folder / path.name).write_bytes(path.read_bytes())
        config = config_of(model)
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    own = {"quant_method": "coppice", "linears": {}}
    path = f"model.layers.{GONE}"
    absent = {f"{path}.self_attn": f"{path}.input_layernorm"}
    with pytest.raises(ModelUnreadable, match=r"says that layer 3 has no attention, and the weights have one"):
        check_checkpoint(written(llama, "has", lambda config: config.update(quantization_config=own | {"absent": absent})))
    with pytest.raises(UnsupportedArchitecture):
        check_checkpoint(written(dropped, "silent", lambda config: config["coppice"].pop("absent")))
    for entry in ({"model.norm": "lm_head"}, {"model.layers.0.self_attn": "model.layers.0.input_layernorm"}, [1], {path: 1}):
        folder = written(
            llama, f"odd-{len(list(tmp_path.iterdir()))}", lambda c, e=entry: c.update(quantization_config=own | {"absent": e})
        )
        with pytest.raises(ModelUnreadable, match="absent attentions that no bundle of Coppice has"):
            check_checkpoint(folder)
    check_checkpoint(dropped)
    assert len(structure_of(read_checkpoint(dropped)).sublayers) == 2 * LAYERS - 1


# --- latencies --------------------------------------------------------------------------------------------------------


def test_an_absent_attention_takes_no_time_on_the_device(llama: Path):
    dense = load_task_model(llama, "text-generation", torch.device("cpu"))
    quick = LatencySpec(batch=1, length=8, repeats=3, threads=1)
    limits = Limits(64, whole_attention=True, absent_from=1)
    plain, lacking = (latency_model(dense, adapt(dense.model), quick, None, own) for own in (None, limits))
    assert [curve[0][0] for curve in plain.curves[::2]] == [1] * LAYERS
    assert [curve[0] for curve in lacking.curves[2::2]] == [(0, 0.0)] * (LAYERS - 1)
    assert lacking.curves[0][0][0] == 1, "the first layer keeps it"


def test_a_stack_without_attention_has_it_in_its_first_layer(llama: Path):
    dense = load_task_model(llama, "text-generation", torch.device("cpu"))
    cut = stacks._cut(dense, adapt(dense.model), Stack(3, 0, 64))
    assert [(own.layer, own.kind, own.size) for own in adapt(cut).groups] == [
        (0, "head", 2),
        *((layer, "neuron", 64) for layer in range(3)),
    ]


def test_a_table_of_an_engine_times_layers_without_attention():
    """10 ms outside; a layer 1 ms, its attention 2 ms and half of that for each head; 3 ms by the width."""

    def steady(stack: Stack) -> float:
        attentions = stack.depth if stack.heads else 1
        heads = stack.heads or 3
        return 1e-3 * (10 + stack.depth * (1 + 3 * stack.neurons / 1536) + attentions * (1 + 0.5 * heads))

    groups, limits = layers_of(), Limits(64, whole_attention=False, absent_from=1)
    shapes = shapes_of(groups, "serve", limits)
    assert Stack(8, 0, 1536) in shapes.stacks(2**20)
    assert Stack(8, 0, 1536) not in replace(shapes, absent_from=None).stacks(2**20)
    model = model_from(table_of(shapes, steady), shapes, "decode")
    whole = 10 + 12 * (1 + 3 + 2.5)
    assert model.total == pytest.approx(whole)
    lacking = (3, 1536, *(0, 1536) * 11)
    assert predicted_share(model, lacking) == pytest.approx((10 + 12 * 4 + 2.5) / whole)
    assert predicted_share(model, (1, 64) * 12) == pytest.approx((10 + 12 * (1 + 0.125 + 1.5)) / whole)
    assert [curve[0][0] for curve in model.curves[::2]] == [1, *[0] * 11]
