"""Models as people have them: wrapped names, adapters, quantised files, tokenizers, folders of the Hub's cache."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.artifacts.bundle import _copy_companions
from pruning_core.checks.notes import notes_on_model, notes_on_place
from pruning_core.checks.prediction import predict
from pruning_core.checks.request import check_checkpoint, check_local_inputs
from pruning_core.errors import ModelUnreadable, PruningError
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.companions import COMPANIONS, FETCHED, companions_of
from pruning_core.files.hub import model_folder
from pruning_core.files.snapshots import resolve_snapshot
from pruning_core.files.stored_names import plain_names
from pruning_core.files.tokenizer import read_tokenizer
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.references import split_revision
from pruning_core.spec.tasks import KINDS
from tests import config_fields, tiny
from tests.families import ARCHITECTURES
from tests.hub import hub

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_bert, tmp_path):
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def rename(folder: Path, how) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({how(name): tensor for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def change(folder: Path, name: str, **entries) -> None:
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | entries))


def task(kind: str) -> TaskSpec:
    metric, columns = KINDS[kind].metrics[0], {"text": ["text"]}
    return TaskSpec.model_validate({"type": kind, "dataset": "./data", "metric": metric, "columns": columns})


def refusal(folder: Path) -> str:
    with pytest.raises(ModelUnreadable) as refused:
        check_checkpoint(folder)
    return str(refused.value)


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.", "module.", "model.", "_orig_mod.module.", "module.model.", "_fsdp_wrapped_module."]
)
def test_names_of_a_wrapped_model_are_read_without_the_wrapper(tiny_bert, tiny_sst2, model, wrapper):
    rename(model, lambda name: wrapper + name)
    assert read_checkpoint(model).shapes == read_checkpoint(tiny_bert).shapes
    check_local_inputs(tiny.tiny_spec(model, tiny_sst2))
    said = predict(tiny.tiny_spec(model, tiny_sst2)).warnings
    assert any(wrapper.rstrip(".").rpartition(".")[2] in one and "left out" in one for one in said)
    plain, wrapped = (load_task_model(one, "text-classification", CPU).model.state_dict() for one in (tiny_bert, model))
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)


def test_wrappers_within_names_and_paged_weights(tiny_bert, model, tmp_path):
    rename(model, lambda name: name.replace(".layer.0.", ".layer.0._orig_mod."))
    pages = tmp_path / "pages"
    pages.mkdir()
    paged = load_task_model(model, "text-classification", CPU, pages=pages)
    ids = torch.tensor([[2, 6, 7, 3]])
    dense = load_task_model(tiny_bert, "text-classification", CPU)
    assert torch.allclose(paged.model(input_ids=ids).logits, dense.model(input_ids=ids).logits, atol=1e-6)


def test_a_wrapper_of_some_names_is_refused_and_transformers_own_prefix_stays():
    with pytest.raises(ModelUnreadable, match=r"1 of the 2 tensors begin with module\."):
        plain_names(["module.a.weight", "b.weight"], "bert")
    with pytest.raises(ModelUnreadable, match="stored twice"):
        plain_names(["layer._orig_mod.a", "layer.a"], "bert")
    own = ["model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
    assert plain_names(own, "llama").wrappers == ()
    assert plain_names([f"model.{name}" for name in own], "llama").of[f"model.{own[0]}"] == own[0]


def test_the_table_of_prefixes_is_that_of_transformers():
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    from pruning_core.checks.heads import LOADED_BY
    from pruning_core.files.stored_names import _OTHER_BASES

    for name in LOADED_BY:
        base = getattr(transformers, MODEL_MAPPING_NAMES[name]).base_model_prefix
        assert _OTHER_BASES.get(name, "model.") == f"{base}."


def test_adapters_are_refused_by_name(model, tmp_path):
    alone = tmp_path / "adapter"
    alone.mkdir()
    change(alone, "adapter_config.json", base_model_name_or_path="org/base", peft_type="LORA")
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, alone / "adapter_model.safetensors")
    assert "LoRA adapter of org/base" in refusal(alone)
    assert "merge_and_unload" in refusal(alone)
    (alone / "adapter_config.json").unlink()
    assert "LoRA adapter" in refusal(alone)
    rename(model, lambda name: f"base_model.model.{name}")
    assert "merge_and_unload" in refusal(model)


@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, {"a.qweight": torch.zeros(4, 4, dtype=torch.int32)}, "gptq"),
        ({"quant_method": "awq"}, {"a.qweight": torch.zeros(4, 4, dtype=torch.int32)}, "awq"),
        ({"load_in_4bit": True}, {"a.weight": torch.zeros(900, 9, dtype=torch.uint8)}, "bitsandbytes, U8"),
        ({"load_in_8bit": True}, {"a.SCB": torch.zeros(9)}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors"}, {"a.weight_packed": torch.zeros(4, dtype=torch.int32)}, "compressed-tensors"),
        ({"quant_method": "fp8"}, {"a.weight": torch.zeros(900, 9).to(torch.float8_e4m3fn)}, "fp8, F8_E4M3"),
        ({"quant_method": "hqq"}, {"a.W_q": torch.zeros(900, 9, dtype=torch.uint8)}, "hqq, U8"),
        (None, {"a.g_idx": torch.zeros(4, dtype=torch.int32)}, "gptq or awq"),
    ],
)
def test_quantised_weights_are_refused_by_the_name_of_their_packer(model, config, tensors, said):
    save_file(load_file(model / "model.safetensors") | tensors, model / "model.safetensors")
    if config is not None:
        change(model, "config.json", quantization_config=config)
    assert f"the weights are quantised ({said}); give the checkpoint as it was before" in refusal(model)


def test_float_weights_with_anothers_config_and_gguf(model):
    change(model, "config.json", quantization_config={"quant_method": "compressed-tensors"})
    assert "the config has a quantization_config of compressed-tensors; give the checkpoint as it was before" in refusal(model)
    (model / "model.safetensors").rename(model / "model-Q4_K_M.gguf")
    assert "GGUF" in refusal(model)
    (model / "config.json").unlink()
    assert "GGUF" in refusal(model)


def test_mlx_is_told_by_its_types(model):
    header = json.dumps({"a.scales": {"dtype": "U32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "quantised (mlx)" in refusal(model)


def test_stored_masks_are_no_parameters(tmp_path):
    gpt2 = tmp_path / "gpt2"
    ARCHITECTURES["gpt2"].write_for("text-generation", gpt2)
    before = read_checkpoint(gpt2)
    bytes_before = before.weight_bytes
    weights = load_file(gpt2 / "model.safetensors")
    for layer in range(2):
        weights |= {f"transformer.h.{layer}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8)}
        weights |= {f"transformer.h.{layer}.attn.masked_bias": torch.tensor(-1e4)}
    save_file(weights, gpt2 / "model.safetensors", {"format": "pt"})
    facts = read_checkpoint(gpt2)
    assert (facts.shapes, facts.dtypes) == (before.shapes, before.dtypes)
    assert facts.computed_bytes == 2 * (64 * 64 + 4)
    assert abs(facts.weight_bytes - bytes_before) < 1000  # the header alone
    assert facts.parameters == load_task_model(gpt2, "text-generation", CPU).parameter_count()
    assert any("masks or positions" in note for note in notes_on_model(gpt2, task("text-generation")))


def test_a_token_without_an_embedding_is_refused(model, tiny_sst2):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = len(tokenizer)
    assert max(read_tokenizer(model).ends) == rows - 1
    tokenizer.add_tokens(["brandx"])
    tokenizer.save_pretrained(model)
    told = f"the tokenizer has {rows + 1} tokens, the model {rows}; resize its embeddings"
    assert told in refusal(model)
    with pytest.raises(ModelUnreadable, match="brandx"):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


def test_a_mask_without_an_embedding_is_said_and_larger_embeddings_are_fine(model, tiny_sst2):
    weights = load_file(model / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    change(model, "config.json", vocab_size=len(weights[name]) + 5)
    save_file(weights | {name: torch.cat([weights[name], torch.zeros(5, weights[name].shape[1])])}, model / "model.safetensors")
    check_local_inputs(tiny.tiny_spec(model, tiny_sst2))
    change(model, "tokenizer_config.json", pad_token="<a new one>")
    assert max(read_tokenizer(model).ends) == len(weights[name])
    change(model, "config.json", vocab_size=len(weights[name]))
    save_file(weights, model / "model.safetensors")
    assert "<a new one>" in refusal(model)
    change(model, "tokenizer_config.json", pad_token="[PAD]", mask_token="<no mask>")
    assert any("<no mask>" in note for note in notes_on_model(model, task("text-classification")))
    with pytest.raises(ModelUnreadable):
        notes_on_model(model, task("fill-mask"))


@pytest.mark.parametrize("number", [-1, 10**6, "0"])
def test_a_padding_id_that_is_no_token(model, number):
    change(model, "config.json", pad_token_id=number)
    assert "pad_token_id" in refusal(model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "tokenizer.json is not readable JSON"),
        ("[]", "must be a JSON object"),
        ('{"added_tokens": []}', "it has no model"),
        ('{"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}', "a whole number from 0"),
        (
            '{"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}',
            "'b', which is not in its vocab",
        ),
        ('{"added_tokens": [], "model": {"type": "Foo", "vocab": {}}}', "the type of its model"),
        ('{"added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}}}', "unk_token"),
        (
            '{"added_tokens": [], "pre_tokenizer": {"type": "X"}, "model": {"type": "WordLevel", "vocab": {}}}',
            "pre_tokenizer must be",
        ),
    ],
)
def test_what_the_library_refuses_of_tokenizers_is_refused_before(model, text, said):
    from tokenizers import Tokenizer

    (model / "tokenizer.json").write_text(text)
    with pytest.raises(Exception):  # noqa: B017, PT011 - the library raises Exception itself
        Tokenizer.from_file(str(model / "tokenizer.json"))
    assert said in refusal(model)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_alone_is_a_tokenizer_and_goes_into_the_bundle(tmp_path, kind):
    import sentencepiece
    from transformers import AutoTokenizer

    (tmp_path / "text").write_text("\n".join("good bad word1 word2 word3 and more of it" for _ in range(50)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "sp"), vocab_size=60, model_type=kind, hard_vocab_limit=False,
        bos_id=1, eos_id=2, unk_id=0, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    folder, out = tmp_path / "model", tmp_path / "out"
    for one in (folder, out):
        one.mkdir()
        change(one, "config.json", model_type="llama")
    (tmp_path / "sp.model").rename(folder / "tokenizer.model")
    change(
        folder, "tokenizer_config.json", tokenizer_class="LlamaTokenizer", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).get_piece_size()
    assert max(read_tokenizer(folder).ends) == pieces - 1
    _copy_companions(folder, out)
    first, second = (AutoTokenizer.from_pretrained(one) for one in (folder, out))
    for text in ("good word1", "bad \u00e9 more", ""):
        assert first(text)["input_ids"] == second(text)["input_ids"]
    (folder / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes()[:-3])
    with pytest.raises(ModelUnreadable, match="SentencePiece"):
        read_tokenizer(folder)


BESIDE = (
    *(
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
        "spm.model",
        "tokenizer.model",
        "source.spm",
        "target.spm",
    ),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
    *("2_Dense/config.json", "2_Dense/model.safetensors", "generation_config.json", "preprocessor_config.json", "LICENSE"),
)


def test_what_is_fetched_of_the_hub_is_what_a_folder_brings(model, tmp_path):
    for name in BESIDE:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("[]" if name == "modules.json" else "{}")
    (model / "pytorch_model.bin").write_bytes(b"no")
    (model / "onnx").mkdir()
    (model / "onnx" / "model.onnx").write_bytes(b"no")
    (tmp_path / "local").mkdir()
    _copy_companions(model, tmp_path / "local")
    copied = {path.relative_to(tmp_path / "local").as_posix() for path in (tmp_path / "local").rglob("*") if path.is_file()}
    assert set(BESIDE) <= copied
    with hub({("model", "org/name"): model}) as served:
        env = os.environ | {"HF_ENDPOINT": served.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        code = "from pruning_core.files.hub import model_folder; print(model_folder('org/name', None))"
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120)
    fetched = Path(done.stdout.strip())
    assert set(companions_of(fetched)) == copied
    assert (fetched / "model.safetensors").is_file()
    assert not (fetched / "pytorch_model.bin").exists()
    assert set(COMPANIONS) <= set(FETCHED)


def test_folders_of_the_hubs_cache(model, tiny_sst2, tmp_path):
    cached = tmp_path / "models--org--name"
    snapshot = cached / "snapshots" / ("a" * 40)
    shutil.copytree(model, snapshot)
    assert resolve_snapshot(cached) == snapshot == model_folder(str(cached), None)
    check_local_inputs(tiny.tiny_spec(cached, tiny_sst2))
    assert any("snapshot aaaaaaaaaaaa is read" in one for one in predict(tiny.tiny_spec(cached, tiny_sst2)).warnings)
    shutil.copytree(model, cached / "snapshots" / ("b" * 40))
    with pytest.raises(ModelUnreadable, match=r"2 snapshots of org/name.*aaaa"):
        resolve_snapshot(cached)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("b" * 40 + "\n")
    assert resolve_snapshot(cached).name == "b" * 40
    assert "of its main branch" in notes_on_place(str(cached), None)[0]
    (cached / "refs" / "main").write_text("../../../etc")
    with pytest.raises(ModelUnreadable):
        resolve_snapshot(cached)


def test_revisions_in_references():
    assert split_revision("org/name@v1.0") == ("org/name", "v1.0")
    assert split_revision("org/name") == ("org/name", None)
    assert split_revision("./here@there") == ("./here@there", None)
    for wrong in ("org/name@", "@x"):
        with pytest.raises(ValueError, match="org/name@revision"):
            split_revision(wrong)


def test_a_spec_takes_a_revision_in_either_place(tiny_sst2):
    given = tiny.tiny_spec("org/name@rev", tiny_sst2)
    assert (given.model, given.revision) == ("org/name", "rev")
    assert tiny.tiny_spec("org/name@rev", tiny_sst2, revision="rev") == given
    with pytest.raises(ValueError, match="named twice"):
        tiny.tiny_spec("org/name@rev", tiny_sst2, revision="other")


def test_the_declared_fields_are_those_of_transformers():
    assert json.loads(config_fields.PLACE.read_text()) == json.loads(config_fields.text())


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_odd_entries_of_a_configuration_are_refused_or_load(family, tmp_path):
    task = {"bert": "text-classification", "t5": "summarization"}.get(family, "text-generation")
    folder = tmp_path / family
    ARCHITECTURES[family].write_for(task, folder)
    config = json.loads((folder / "config.json").read_text())
    check_checkpoint(folder)
    refused = 0
    for key in sorted(config.keys() - {"architectures", "transformers_version", "dtype"}):
        for value in ("12", -1, None, [], 1.5):
            (folder / "config.json").write_text(json.dumps(config | {key: value}))
            try:
                check_checkpoint(folder)
            except PruningError:
                refused += 1
                continue
            load_task_model(folder, task, CPU)
    assert refused > len(config)
