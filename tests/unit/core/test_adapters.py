"""LoRA adapters: merged as PEFT merges them, proven in a bundle, and refused in a sentence where they don't belong."""

from __future__ import annotations

import json
import shutil

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import ModelUnreadable
from pruning_core.kept.folder import KeptFolder
from pruning_core.models.adapter import merge_adapter
from pruning_core.run.pipeline import run
from tests import tiny
from tests.exported import write_llama

# PEFT itself uses what transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def write_adapter(folder, base, kind, **options):
    """Write an adapter whose updates are no zeros. Return the base with it, as its users run it."""
    torch.manual_seed(1)
    model = getattr(transformers, kind).from_pretrained(base)
    own = peft.get_peft_model(model, peft.LoraConfig(r=4, **options))
    with torch.no_grad():
        for name, parameter in own.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(std=0.2)
    own.save_pretrained(folder)
    return own.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return tiny.write_model(folder / "base", "bert", task="other"), tiny.write_dataset(folder / "data")


@pytest.fixture(scope="module")
def adapted(base, tmp_path_factory):
    """Return the folder of an adapter of a classifier, which brings its head, and the model with it."""
    folder = tmp_path_factory.mktemp("adapted") / "lora"
    options = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]}
    return folder, write_adapter(folder, base[0], "AutoModelForSequenceClassification", **options)


def inputs(base):
    tokens = transformers.AutoTokenizer.from_pretrained(base)
    return tokens(["word1 word2 good", "word7"], padding=True, return_tensors="pt")


@pytest.mark.parametrize(
    "more", [{}, {"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["pooler"]}, {"bias": "lora_only"}]
)
def test_outputs_are_those_of_base_and_adapter(base, tmp_path, more):
    options = {"task_type": "SEQ_CLS", "target_modules": ["query", "dense"]} | more
    wanted = write_adapter(tmp_path / "lora", base[0], "AutoModelForSequenceClassification", **options)
    (tmp_path / "out").mkdir()
    report = merge_adapter(base[0], tmp_path / "lora", "text-classification", tmp_path / "out")
    found = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    with torch.inference_mode():
        torch.testing.assert_close(found(**inputs(base[0])).logits, wanted(**inputs(base[0])).logits, rtol=1e-4, atol=1e-5)
    assert report.rank == 4
    assert report.modules >= 4


def test_a_decoder_is_merged(tmp_path):
    model = write_llama(tmp_path / "base")
    options = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "down_proj"]}
    wanted = write_adapter(tmp_path / "lora", model, "AutoModelForCausalLM", **options)
    (tmp_path / "out").mkdir()
    merge_adapter(model, tmp_path / "lora", "text-generation", tmp_path / "out")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        ours, theirs = found(ids).logits.float(), wanted(ids).logits.float()
    assert (ours - theirs).norm() < 0.02 * theirs.norm(), "it is stored in bfloat16, as its base is"


@pytest.mark.long
def test_a_run_merges_and_says_so(base, adapted, tmp_path):
    kept = tmp_path / "kept"
    spec = tiny.tiny_spec(*base, adapter=str(adapted[0]))
    report = run(spec, tmp_path / "out", statistics=KeptFolder(kept))
    assert report.adapter is not None
    assert report.adapter.name == "lora"
    assert any("the LoRA adapter lora (rank 4, 4 matrices) was merged" in warning for warning in report.warnings)
    assert report.acceptance is not None
    again = run(spec, tmp_path / "again", statistics=KeptFolder(kept))
    assert all(own.reused for own in again.statistics.pieces)
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()


def test_a_submit_looks_at_it(base, adapted):
    found = check_local_inputs(tiny.tiny_spec(*base, adapter=str(adapted[0])))
    assert any("merged the adapter" in said for said in found.findings.not_looked_at)


def refused(base, folder):
    with pytest.raises(ModelUnreadable) as caught:
        check_local_inputs(tiny.tiny_spec(*base, adapter=str(folder)))
    assert caught.value.param == "adapter"
    return str(caught.value)


def changed(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


@pytest.fixture
def copy(adapted, tmp_path):
    shutil.copytree(adapted[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_an_adapter_for_another_base_is_told_by_its_sizes(base, tmp_path):
    other = tiny.write_model(tmp_path / "other", "bert", hidden_size=64)
    write_adapter(tmp_path / "lora", other, "AutoModelForSequenceClassification", task_type="SEQ_CLS", target_modules=["query"])
    assert "query is 64 x 64, and the model's is 32 x 32" in refused(base, tmp_path / "lora")


def test_an_adapter_for_a_deeper_base_is_told_by_what_lacks(base, tmp_path):
    other = tiny.write_model(tmp_path / "other", "bert", num_hidden_layers=3)
    write_adapter(tmp_path / "lora", other, "AutoModelForSequenceClassification", task_type="SEQ_CLS", target_modules=["query"])
    assert "1 of 3 modules" in refused(base, tmp_path / "lora")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "of the kind 'IA3'"),
        ({"megatron_config": {"tensor_model_parallel_size": 2}, "megatron_core": "os"}, "setting 'megatron_config'"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "setting 'layer_replication'"),
    ],
)
def test_other_kinds_and_settings_are_refused_by_name(base, copy, settings, message):
    assert message in refused(base, changed(copy, **settings))


def test_a_pickle_is_not_read(base, copy):
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    assert "adapter_model.bin is a pickle, which is not read" in refused(base, copy)


def test_what_is_no_adapter_is_told(base, tmp_path, copy):
    assert "has no adapter_config.json" in refused(base, tmp_path / "gone")
    assert "no pairs of lora_A and lora_B" in refused(base, emptied(copy))


def emptied(folder):
    path = folder / "adapter_model.safetensors"
    save_file({name: own for name, own in load_file(path).items() if "lora_" not in name}, path)
    return folder


def test_matrices_that_do_not_fit_are_told(base, copy):
    path = copy / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    save_file(tensors | {name: torch.zeros(3, 32)}, path)
    assert "don't fit each other" in refused(base, copy)


def test_weights_that_are_no_numbers_fail_the_merge(base, copy, tmp_path):
    path = copy / "adapter_model.safetensors"
    save_file({name: torch.full_like(own, float("nan")) for name, own in load_file(path).items()}, path)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelUnreadable, match="PEFT cannot merge the adapter"):
        merge_adapter(base[0], copy, "text-classification", tmp_path / "out")


def test_a_head_in_neither_is_told(base, copy, tmp_path):
    path = copy / "adapter_model.safetensors"
    save_file({name: own for name, own in load_file(path).items() if "classifier" not in name}, path)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelUnreadable, match="classifier"):
        merge_adapter(base[0], copy, "text-classification", tmp_path / "out")


def test_an_adapter_in_place_of_a_model_says_where_it_belongs(base, adapted):
    with pytest.raises(ModelUnreadable, match="give its base as the model and this folder as the adapter"):
        check_local_inputs(tiny.tiny_spec(adapted[0], base[1]))
