"""Entries of a model's files that transformers fails on, or takes otherwise than they stand: refused, or rightly read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pruning_core.arch.adapter import adapt
from pruning_core.checks.heads import LOADED_BY
from pruning_core.checks.request import check_checkpoint, check_local_inputs
from pruning_core.checks.tokens import NUMBERED_BY_PADDING
from pruning_core.errors import ModelUnreadable
from pruning_core.files.checkpoint import classes_of, names_of, read_checkpoint
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import TaskType
from pruning_core.tasks.base import random_tokens
from tests import image_processors, tasks, tiny
from tests.families import ARCHITECTURES
from tests.model_types import inputs_for, tiny_config

OLD = "ViTFeatureExtractor"
CPU = torch.device("cpu")
YARN = {"rope_type": "yarn", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.fixture
def model(tiny_bert, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    ARCHITECTURES["llama"].write_for("text-generation", folder / "llama")
    tasks.write_task_model(folder / "gpt2", "text-generation")
    tasks.write_task_model(folder / "t5", "summarization")
    tasks.write_task_model(folder / "vit", "image-classification")
    tasks.write_task_data(folder / "images", "image-classification", rows=8)
    return {name: folder / name for name in ("llama", "gpt2", "t5", "vit", "images")}


def change(folder: Path, name: str = "config.json", **entries: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | entries))
    return folder


def copied(folder: Path, place: Path, **entries: Any) -> Path:
    return change(Path(shutil.copytree(folder, place / "copy")), **entries)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelUnreadable) as refused:
        check_checkpoint(folder)
    assert refused.value.param == "model"
    return str(refused.value)


@pytest.mark.parametrize(
    ("family", "said", "says"),
    [
        ("gpt2", YARN, "an object with original_max_position_embeddings, for a rope_type of yarn"),
        ("t5", LLAMA3, "original_max_position_embeddings and rope_theta, for a rope_type of llama3"),
        ("llama", {"rope_type": "llama3", "factor": 8.0}, "high_freq_factor and low_freq_factor, for"),
        ("llama", {"rope_type": "longrope", "short_factor": [1.0]}, "with long_factor, for a rope_type of longrope"),
        ("llama", YARN | {"original_max_position_embeddings": 0}, "original_max_position_embeddings are numbers above 0"),
        ("llama", YARN | {"beta_fast": "x"}, "factor, beta_fast are numbers from 0"),
        ("llama", {"rope_type": "longrope", "short_factor": 1, "long_factor": [1]}, "are lists of numbers"),
        ("llama", {"rope_type": ["yarn"]}, "an object with a rope_type of default, dynamic"),
        ("llama", [YARN], "must be an object or null"),
    ],
)
def test_rotary_positions_need_what_transformers_needs(saved, tmp_path, family, said, says):
    assert says in refusal(copied(saved[family], tmp_path, rope_scaling=said))


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("llama", YARN),
        ("llama", LLAMA3 | {"original_max_position_embeddings": 32}),
        ("llama", LLAMA3),
        ("llama", None),
        ("gpt2", {"type": "linear", "factor": 2.0}),
        ("gpt2", YARN | {"original_max_position_embeddings": 32}),
        ("t5", {}),
    ],
)
@pytest.mark.filterwarnings("ignore:`rope_scaling` is deprecated")
def test_rotary_positions_that_are_taken_load(saved, tmp_path, family, said):
    folder = copied(saved[family], tmp_path, rope_parameters=None, rope_scaling=said)
    check_checkpoint(folder)
    load_task_model(folder, "summarization" if family == "t5" else "text-generation", CPU)


@pytest.mark.parametrize("name", ["float33", "bfloat", "auto", "uint9"])
def test_a_type_of_numbers_that_torch_has_not_is_refused(model, name):
    assert "must be the name of a type of numbers" in refusal(change(model, dtype=name))


@pytest.mark.parametrize("name", ["int8", "half", "float8_e4m3fn", None])
def test_a_type_of_numbers_that_torch_has_is_taken(model, name):
    check_checkpoint(change(model, dtype=name))
    assert load_task_model(model, "text-classification", CPU).model.dtype == torch.float32


@pytest.mark.parametrize("count", [None, -1, "2", 2.0, True, 10**12])
def test_a_number_of_classes_that_is_none_is_refused(model, count):
    assert "num_labels is" in refusal(change(model, num_labels=count))


def test_a_stated_number_of_classes_goes_before_names_as_in_transformers(model, tiny_sst2):
    change(model, num_labels=2, id2label={"0": "a", "1": "b", "2": "c"})
    facts = read_checkpoint(model)
    assert (classes_of(facts), names_of(facts)) == (2, ())
    assert load_task_model(model, "text-classification", CPU).classes == ("LABEL_0", "LABEL_1")
    change(model, num_labels=5, id2label={"0": "a", "1": "b"})
    with pytest.raises(ModelUnreadable, match="says 5 classes"):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


@pytest.mark.parametrize("name", [None, ["a"], {"value": "a"}])
def test_a_name_of_a_class_that_is_none_is_refused(model, name):
    assert "to their names, which are texts" in refusal(change(model, id2label={"0": name, "1": "b"}))


def test_numbers_for_names_are_read_as_texts(model):
    change(model, id2label={"0": 5, "1": 7})
    check_checkpoint(model)
    assert names_of(read_checkpoint(model)) == ("5", "7")
    assert load_task_model(model, "text-classification", CPU).classes == ("5", "7")


@pytest.mark.parametrize("name", ["padding_side", "truncation_side"])
@pytest.mark.parametrize("side", ["both", None])
def test_a_side_that_is_none_is_refused(model, name, side):
    change(model, "tokenizer_config.json", **{name: side})
    assert f"{name} must be left or right" in refusal(model)


def test_a_model_that_would_see_earlier_tokens_alone_is_refused(model):
    assert "is_decoder true" in refusal(change(model, is_decoder=True))
    check_checkpoint(change(model, is_decoder=False))


def test_recomputing_for_gradients_is_left_out(model, tiny_sst2):
    change(model, gradient_checkpointing=True)
    check_local_inputs(tiny.tiny_spec(model, tiny_sst2))
    loaded = load_task_model(model, "text-classification", CPU)
    assert not loaded.model.is_activation_checkpointing
    assert adapt(loaded.model).groups


def test_several_tokens_that_end_a_text(saved, tmp_path):
    folder = copied(saved["t5"], tmp_path, eos_token_id=[2, 3])
    check_checkpoint(folder)
    loaded = load_task_model(folder, "summarization", CPU)
    ids = random_tokens(loaded, 2, 8, torch.Generator().manual_seed(0))
    assert ids[:, -1].tolist() == [2, 2]


def spec(folder: Path, data: Path, task_type: TaskType) -> PruneSpec:
    task = tasks.task_of(task_type, data)
    return PruneSpec.model_validate({"model": str(folder), "task": task, "target": {"metric": "macs", "keep": 0.6}})


@pytest.mark.parametrize(("entry", "says"), [("pad_token_id", "is null"), ("eos_token_id", "must be one whole number")])
def test_an_encoder_decoder_that_classifies_names_its_tokens(tmp_path, entry, says):
    ARCHITECTURES["bart"].write_for("text-classification", tmp_path / "model")
    tasks.write_task_data(tmp_path / "data", "text-classification", rows=8)
    asked = spec(tmp_path / "model", tmp_path / "data", "text-classification")
    check_local_inputs(asked)
    change(tmp_path / "model", **{entry: None})
    with pytest.raises(ModelUnreadable, match=f"{entry} .*{says}|{entry} {says}"):
        check_local_inputs(asked)


@pytest.mark.filterwarnings("ignore")
def test_types_that_number_tokens_by_padding_are_those_of_transformers():
    """Without a padding token they fail. The model of a type is made without it, and run."""
    import transformers

    failing = set()
    for name in LOADED_BY:
        loaded = next((own for own in ("AutoModelForMaskedLM", "AutoModelForSeq2SeqLM") if own in LOADED_BY[name]), None)
        if loaded is None:
            continue
        config = tiny_config(name)
        config.pad_token_id = None
        try:
            found = getattr(transformers, loaded).from_config(config).eval()
            inputs = inputs_for(found, loaded)
            found(**inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])})
        except TypeError:
            failing.add(name)
    assert failing == NUMBERED_BY_PADDING


def test_a_model_that_numbers_tokens_by_padding_has_some(tmp_path):
    tiny.write_model(tmp_path, "roberta")
    check_checkpoint(tmp_path)
    assert "pad_token_id is null" in refusal(change(tmp_path, pad_token_id=None))


@pytest.mark.parametrize(
    "name", ["ByT5Tokenizer", "CanineTokenizer", "TorchvisionBackend", "BasicTokenizer", "M2M100Tokenizer", "BertweetTokenizer"]
)
def test_a_tokenizer_class_that_reads_other_files_is_refused(model, name):
    change(model, "tokenizer_config.json", tokenizer_class=name)
    assert f"name the tokenizer class {name}, which " in refusal(model)


@pytest.mark.parametrize("said", [{"unk_token": None}, {"unk_token": "<lost>"}, {}])
def test_a_class_that_builds_a_vocabulary_has_a_token_for_unknown_words_in_it(model, said):
    path = model / "tokenizer_config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key != "unk_token"}
    path.write_text(json.dumps(config | {"tokenizer_class": "BertTokenizer"}))
    check_checkpoint(model)
    whole = json.loads((model / "tokenizer.json").read_text())
    if not said:  # the usual name is none of this vocabulary's
        whole = json.loads(json.dumps(whole).replace("[UNK]", "[unk]"))
        (model / "tokenizer.json").write_text(json.dumps(whole))
    change(model, "tokenizer_config.json", **said)
    assert "the vocabulary has none such" in refusal(model) or "has no row" in refusal(model)
    change(model, "tokenizer_config.json", unk_token="[unk]" if not said else "[UNK]")
    check_checkpoint(model)


@pytest.mark.long
def test_the_processors_of_images_are_those_of_transformers():
    assert json.loads(image_processors.PLACE.read_text()) == json.loads(image_processors.text())


@pytest.mark.parametrize("name", ["WiTImageProcessor", "LayoutLMv2ImageProcessor"])
@pytest.mark.parametrize("key", ["image_processor_type", "feature_extractor_type"])
def test_a_processor_that_transformers_has_not_is_refused(saved, tmp_path, name, key):
    folder = Path(shutil.copytree(saved["vit"], tmp_path / "copy"))
    change(folder, "preprocessor_config.json", **{key: name})
    with pytest.raises(ModelUnreadable, match=rf"preprocessor_config.json: {key} must be the name of a class"):
        check_local_inputs(spec(folder, saved["images"], "image-classification"))


@pytest.mark.parametrize(
    ("name", "older"),
    [("ViTImageProcessor", None), ("ViTImageProcessorFast", None), ("DeiTImageProcessor", None), (None, None), (None, OLD)],
)
def test_a_processor_that_transformers_has_loads(saved, tmp_path, name, older):
    folder = Path(shutil.copytree(saved["vit"], tmp_path / "copy"))
    change(folder, "preprocessor_config.json", image_processor_type=name, feature_extractor_type=older)
    check_local_inputs(spec(folder, saved["images"], "image-classification"))
    load_task_model(folder, "image-classification", CPU)
