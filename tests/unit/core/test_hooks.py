"""Hooks in a model's files: code or files from elsewhere are refused or left out, at submit, at load and in the bundle."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pruning_core.arch import sublayer
from pruning_core.arch.families import SIGNATURES
from pruning_core.checks.hook_rules import COUNTS
from pruning_core.checks.hooks import check_hooks, native_types
from pruning_core.checks.prediction import predict
from pruning_core.checks.request import check_checkpoint, check_local_inputs
from pruning_core.errors import ModelUnreadable
from pruning_core.models.load import load_task_model
from pruning_core.models.plain import load_config, without_hooks
from pruning_core.run.pipeline import run
from tests import tiny
from tests.hooks import FOREIGN, KERNEL, MODULES, READER, REFUSED, TOKENS

# What honest models have.
ALLOWED = {
    "attention by name": ("config.json", {"attn_implementation": "eager"}),
    "attention of old versions": ("config.json", {"_attn_implementation": "sdpa", "_attn_implementation_autoset": True}),
    "attention, unset": ("config.json", {"_attn_implementation": None}),
    "type": ("config.json", {"torch_dtype": "bfloat16"}),
    "name of a hub": ("config.json", {"_name_or_path": "bert-base-uncased"}),
    "sizes of kernels": ("config.json", {"conv_kernel": [10, 3], "kernel_size": 3}),
    "labels": (
        "config.json",
        {"id2label": {"0": "use_kernels", "1": "auto_map"}, "label2id": {"use_kernels": 0, "auto_map": 1}},
    ),
    "no quantisation": ("config.json", {"quantization_config": None}),
    "cache": ("generation_config.json", {"cache_implementation": "hybrid"}),
    "stale paths": (READER, {"tokenizer_file": "/root/.cache/x/tokenizer.json", "name_or_path": "/home/me/model"}),
    "stale map": (READER, {"special_tokens_map_file": "/root/.cache/special_tokens_map.json", "init_inputs": []}),
    "template": (READER, {"chat_template": "{% for m in messages %}{{ m['content'] }}/{% endfor %}"}),
    "pieces": (READER, {"sp_model_kwargs": {}}),
    "tokens": (TOKENS, {"unk_token": {"content": "[UNK]", "lstrip": False}}),
    "image processor": (
        "preprocessor_config.json",
        {"image_processor_type": "ViTImageProcessorFast", "feature_extractor_type": None},
    ),
}


@pytest.fixture
def model(tiny_bert: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bert, tmp_path / "model")


def change(folder: Path, name: str, entries: dict[str, object]) -> None:
    path = folder / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | entries))


def load(folder: Path, pages: Path | None = None):
    return load_task_model(folder, "text-classification", torch.device("cpu"), pages=pages)


@pytest.mark.parametrize("what", REFUSED)
def test_code_and_files_from_elsewhere_are_refused_at_submit_and_at_load(what, model, tiny_sst2):
    name, entries = REFUSED[what]
    change(model, name, entries)
    spec = tiny.tiny_spec(model, tiny_sst2)
    for attempt in (check_checkpoint, load, lambda _model: check_local_inputs(spec)):
        with pytest.raises(ModelUnreadable) as refused:
            attempt(model)
        assert name in str(refused.value)
        assert str(model) not in str(refused.value)


@pytest.mark.parametrize("what", MODULES)
def test_modules_of_sentence_transformers_are_its_own(what, model):
    kind, path = MODULES[what]
    (model / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": path, "type": kind}]))
    with pytest.raises(ModelUnreadable, match=r"modules\.json: '?(type|path)'? must"):
        check_checkpoint(model)


@pytest.mark.parametrize("what", ALLOWED)
def test_what_honest_models_have_is_loaded_as_it_always_was(what, model):
    name, entries = ALLOWED[what]
    change(model, name, entries)
    check_checkpoint(model)
    assert check_hooks(model) == ()
    with without_hooks(model) as plain:
        assert plain == model  # and nothing is copied
    loaded = load(model)
    asked = entries.get("attn_implementation", entries.get("_attn_implementation"))
    assert loaded.model.config._attn_implementation == (asked or "sdpa")


def test_no_kernel_is_even_looked_for(model, monkeypatch):
    asked: list[str] = []

    class Watch:
        def find_spec(self, name, _path=None, _target=None):
            if name.partition(".")[0] == "kernels":
                asked.append(name)

    monkeypatch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    change(model, "config.json", {"attn_implementation": KERNEL})
    for pages in (None, model):
        with pytest.raises(ModelUnreadable, match="attn_implementation"):
            load(model, pages)
    assert asked == []
    importlib.util.find_spec("kernels")
    assert asked == ["kernels"]  # the watch would have seen it


@pytest.mark.parametrize("entries", [{"attn_implementation": KERNEL}, {"experts_implementation": "deepgemm"}])
def test_the_loaded_configuration_is_judged_too_in_case_the_file_changes_after_the_check(entries, model):
    change(model, "config.json", entries)
    with pytest.raises(ModelUnreadable, match="implementation"):
        load_config(model)


def _with_foreign_code(model: Path) -> Path:
    canary = model.parent / "canary"
    code = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\nclass EvilModel: pass\n"
    for name in ("evil.py", "modeling_coppice.py"):
        (model / name).write_text(code)
    change(model, "config.json", {"auto_map": FOREIGN, "custom_pipelines": {"evil": {"impl": "evil.EvilModel"}}})
    change(model, READER, {"auto_map": {"AutoTokenizer": [None, "evil.EvilModel"]}, "trust_remote_code": True})
    change(model, "generation_config.json", {"trust_remote_code": True})
    return canary


LAYOUTS = {
    "per_layer": {},
    "stock": {"artifacts": {"layout": "stock"}, "target": {"metric": "macs", "keep": 0.6, "tolerance": 0.05}},
    "compressed": {
        "artifacts": {"layout": "stock", "formats": ["safetensors", "compressed"]},
        "method": {"name": "admm-pattern", "pattern": "2:4"},
        "target": None,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.long
def test_foreign_code_is_left_out_and_said_and_no_bundle_carries_it(layout, model, tiny_sst2, tmp_path):
    canary = _with_foreign_code(model)
    spec = tiny.tiny_spec(model, tiny_sst2, **LAYOUTS[layout])
    said = predict(spec)
    assert said is not None
    assert [warning for warning in said.warnings if "config.json names code of its own (auto_map, custom_pipelines)" in warning]
    report = run(spec, tmp_path / "out", device="cpu")
    assert set(said.warnings) <= set(report.warnings)
    assert any(
        f"{READER} names code of its own (auto_map, trust_remote_code); it was left out" in own for own in report.warnings
    )
    folders = [tmp_path / "out", *([tmp_path / "out" / "compressed"] if layout == "compressed" else [])]
    for folder in folders:
        written = {path.name: path.read_text() for path in folder.glob("*.json") if path.name != "report.json"}
        assert not [name for name, text in written.items() if "evil" in text.lower() or "custom_pipelines" in text]
        assert "trust_remote_code" not in written[READER]
        assert "auto_map" not in written[READER]
        named = json.loads(written["config.json"]).get("auto_map", {})
        assert all(value.startswith("modeling_coppice.Coppice") for value in named.values())
        assert bool(named) == (layout == "per_layer" or folder.name == "compressed")
        assert not (folder / "evil.py").exists()
    assert not canary.exists()


def test_a_type_that_transformers_does_not_have_is_refused_with_the_reason(model, tiny_sst2):
    change(model, "config.json", {"auto_map": FOREIGN, "model_type": "evil"})
    with pytest.raises(
        ModelUnreadable, match=r"\(auto_map\), which is never run here, and transformers has no native class for"
    ):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


@pytest.mark.long
def test_a_bundle_of_ours_is_pruned_again_without_a_word(tiny_bert, tiny_sst2, tmp_path):
    run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "once", device="cpu")
    assert "auto_map" in json.loads((tmp_path / "once" / "config.json").read_text())
    assert check_hooks(tmp_path / "once") == ()
    again = tiny.tiny_spec(tmp_path / "once", tiny_sst2, target={"metric": "macs", "keep": 0.7})
    report = run(again, tmp_path / "twice", device="cpu")
    assert not [warning for warning in report.warnings if "code of its own" in warning]
    assert json.loads((tmp_path / "twice" / "config.json").read_text())["coppice"]["linears"]


def test_a_bundle_that_names_other_code_beside_ours_is_not_ours(tiny_bert, tiny_sst2, tmp_path):
    run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "once", device="cpu")
    change(tmp_path / "once", "config.json", {"auto_map": {"AutoModel": "evil-org/evil--modeling_coppice.CoppiceX"}})
    assert "auto_map" in check_hooks(tmp_path / "once")[0]


def test_a_clean_copy_is_removed_and_makes_no_link(model, monkeypatch):
    """The sandbox of a job lets nobody make links; weights are named where they lie."""
    monkeypatch.setattr(Path, "symlink_to", lambda *_: pytest.fail("a link"))
    _with_foreign_code(model)
    (model / "1_Pooling").mkdir()
    change(model, "1_Pooling/config.json", {"trust_remote_code": True, "pooling_mode": "cls"})
    with without_hooks(model) as plain:
        assert plain != model
        assert json.loads((plain / "1_Pooling" / "config.json").read_text()) == {"pooling_mode": "cls"}
        index = json.loads((plain / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == {str(model / "model.safetensors")}
        assert not (plain / "model.safetensors").exists()
    stored, loaded = load_file(model / "model.safetensors"), load(model).model.state_dict()
    assert all(torch.equal(own, loaded[name]) for name, own in stored.items())
    assert not plain.exists()
    assert "trust_remote_code" in (model / "1_Pooling" / "config.json").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "is nested too deeply"),
        ('{"a":' * 100 + "1" + "}" * 100, "is nested too deeply"),
        ("{", "is not readable JSON"),
        ("[]", "must be a JSON object"),
        ("{}" + " " * 2**23, "has more than 8388608 bytes"),
    ],
    ids=["lists", "objects", "cut off", "list", "large"],
)
def test_a_file_that_is_no_json_or_too_deep_is_refused(text, says, model):
    (model / READER).write_text(text)
    with pytest.raises(ModelUnreadable, match=rf"tokenizer_config\.json {says}"):
        check_checkpoint(model)


def test_the_list_of_types_is_that_of_the_installed_transformers():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert native_types() == set(CONFIG_MAPPING_NAMES)


def test_the_allowed_counts_are_those_that_bundles_state():
    own = {*sublayer._HEAD_COUNTS, *sublayer._WIDTHS, *sublayer._GROUP_COUNTS, "position_heads", "config_heads"}
    vectors = {name for family in SIGNATURES for half in family.sublayers for name in half.vectors}
    assert own | vectors == COUNTS


def test_a_tokenizer_whose_regex_is_none_is_refused_with_a_reason(model):
    regex = {"type": "Split", "pattern": {"Regex": "(((("}, "behavior": "Isolated", "invert": False}
    change(model, "tokenizer.json", {"pre_tokenizer": regex})
    with pytest.raises(ModelUnreadable, match="no tokenizer that transformers can load"):
        load(model)


def test_what_transformers_says_is_told_without_the_server_s_path(model, monkeypatch):
    from pruning_core.models import load as loading

    def fail(folder: Path, *_rest: object) -> None:
        raise OSError(f"{folder} is not as it should be\nmore")

    monkeypatch.setattr(loading, "_load_whole", fail)
    with pytest.raises(ModelUnreadable, match=r"cannot load the checkpoint: the model's folder is not as it should be$"):
        load(model)
