"""Files that the libraries refuse, or that they would fail on later: each is refused at check, and no other one."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pruning_core.checks.reader import check_writing
from pruning_core.checks.request import check_checkpoint, check_local_inputs
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.files.safetensors_header import HeaderRefused, read_header
from pruning_core.files.tokenizer_json import TokenizerRefused, check_tokenizer
from pruning_core.spec.prune import PruneSpec, TaskSpec
from tests import tasks, tiny, tokenizer_classes
from tests.families import ARCHITECTURES
from tests.mutations import documents
from tests.mutations.bases import copy_of


@pytest.fixture
def model(tiny_bert, tmp_path):
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


def change(folder: Path, name: str, **entries) -> None:
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | entries))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelUnreadable) as refused:
        check_checkpoint(folder)
    return str(refused.value)


def _with_header(path: Path, header: bytes, data: bytes) -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def _library_reads(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118 - no mapping
    except (SafetensorError, TypeError):  # the latter of torch, of an axis beyond its numbers
        return False


def _ours_reads(path: Path) -> bool:
    try:
        read_header(path)
    except HeaderRefused:
        return False
    return True


def test_headers_are_judged_as_the_library_judges_them(tmp_path):
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"a.weight": torch.ones(2, 3), "b": torch.ones(4), "e": torch.zeros(0, 3)}, path, metadata={"format": "pt"})
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    good, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    places = list(documents.paths(good))
    tried = 0
    for operation in documents.OPERATIONS:
        values = documents.VALUES if operation in ("set", "add", "scale") else (None,)
        for index in range(len(places)):
            for value in values:
                changed = documents.mutated(copy.deepcopy(good), operation, index, value)
                _with_header(path, json.dumps(changed).encode(), data)
                assert _ours_reads(path) == _library_reads(path), (operation, places[index], value)
                tried += 1
    assert tried > 1000


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"pt"', '"\\ud800"'),
        ("a.weight", "\\udfff"),
        ('"F32"', '"F8"'),
        ('{"format": "pt"}', "null"),
        ('"pt"', '"\\ud83d\\ude00"'),
    ],
)
def test_halves_of_characters_and_types_are_judged_as_the_library_judges_them(tmp_path, old, new):
    header = json.dumps({"__metadata__": {"format": "pt"}, "a.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    assert old in header
    _with_header(tmp_path / "a", header.replace(old, new).encode(), bytes(4))
    assert _ours_reads(tmp_path / "a") == _library_reads(tmp_path / "a")


def test_headers_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "model.safetensors"
    for header, says in (
        (b'{"__metadata__": {"a": 5}}', "its __metadata__ must be an object whose values are texts"),
        (b'{"__metadata__": {"a": "\\ud800"}}', "half a character"),
        (b'{"a": {"dtype": "F7", "shape": [0], "data_offsets": [0, 0]}}', "gives a no type that safetensors has"),
    ):
        _with_header(path, header, b"")
        with pytest.raises(HeaderRefused, match=says):
            read_header(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_deep_nesting_is_refused(model, name):
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    change(model, name, chat_template=deep)
    assert f"{name} is nested too deeply" in refusal(model)


_WORDS = {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]"}
_TRUNCATION = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
_PADDING = {
    "strategy": "BatchLongest",
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}
_INSERTS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"a": {"id": "a", "ids": [1], "tokens": ["a"]}},
}


def _settings() -> list[dict[str, Any]]:
    truncations = [
        *({"direction": said} for said in ("Left", "right", None, 5)),
        *({"max_length": said} for said in (0, 1, 2**40, 2**64, -1, "5", None)),
        *({"strategy": said} for said in ("OnlyFirst", "OnlySecond", "x", None, [], {"LongestFirst": None}, {"Fixed": 5})),
        *({"stride": said} for said in (4, 5, 6, -1)),
        *({"max_length": 0, "stride": said} for said in (0, 1)),
    ]
    paddings = [
        *(
            {"strategy": said}
            for said in ({"Fixed": 5}, {"Fixed": -1}, {"Fixed": "5"}, {"Fixed": 5, "x": 1}, "Fixed", "x", None)
        ),
        *({"strategy": said} for said in ({"BatchLongest": None}, {"LongestFirst": None}, {})),
        *({"direction": said} for said in ("Left", "right", None)),
        *({"pad_to_multiple_of": said} for said in (0, 8, -1, "8")),
        *({name: said} for name in ("pad_id", "pad_type_id") for said in (2**32, 2**32 - 1, -1, None)),
        *({"pad_token": said} for said in (5, None, "", "zz")),
    ]
    found = [{"truncation": _TRUNCATION | one, "post_processor": how} for one in truncations for how in (None, _INSERTS)]
    found += [{"padding": _PADDING | one} for one in paddings]
    found += [{"truncation": {k: v for k, v in _TRUNCATION.items() if k != gone}} for gone in _TRUNCATION]
    found += [{"padding": {k: v for k, v in _PADDING.items() if k != gone}} for gone in _PADDING]
    return [*found, {"truncation": _TRUNCATION | {"x": 1}}, {"padding": _PADDING | {"x": 1}}]


@pytest.mark.parametrize("said", _settings(), ids=json.dumps)
def test_truncation_and_padding_are_judged_as_the_library_judges_them(said):
    from tokenizers import Tokenizer

    whole: dict[str, Any] = {"version": "1.0", "added_tokens": [], "post_processor": None, "model": _WORDS} | said
    try:
        loaded = Tokenizer.from_str(json.dumps(whole))
        if loaded.truncation is not None:  # as transformers does when it loads it
            loaded.enable_truncation(**loaded.truncation)
        reads = True
    except Exception:  # tokenizers raises Exception itself
        reads = False
    try:
        check_tokenizer(whole)
        assert reads
    except TokenizerRefused:
        assert not reads


def test_words_without_a_token_for_unknown_ones_are_refused(model):
    whole = json.loads((model / "tokenizer.json").read_text())
    del whole["model"]["vocab"][whole["model"]["unk_token"]]
    (model / "tokenizer.json").write_text(json.dumps(whole))
    assert "is not in its vocab, so a word that is not there fails" in refusal(model)


@pytest.mark.parametrize(
    "names", [["input_ids"], [], ["pixel_values"], "input_ids", None, ["x", "input_ids", "attention_mask"], [5]]
)
def test_inputs_that_lack_the_tokens_or_their_mask_are_refused(model, names):
    change(model, "tokenizer_config.json", model_input_names=names)
    assert "model_input_names must be a list with input_ids and attention_mask" in refusal(model)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"pad_token": "<nowhere>"}, "'<nowhere>' has no row"),
        ({"pad_token": {"content": "<nowhere>", "lstrip": False}}, "'<nowhere>' has no row"),
        ({"mask_token": 5}, "special_tokens_map.json: mask_token must be a text"),
    ],
)
def test_special_tokens_of_the_older_file_count(model, said, says):
    change(model, "special_tokens_map.json", **said)
    assert says in refusal(model)
    change(model, "tokenizer_config.json", added_tokens_decoder={})  # with which transformers does not read it
    check_checkpoint(model)


def test_a_padding_token_of_the_tokenizer_itself_counts(model):
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("pad_token", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    change(model, "tokenizer.json", padding=_PADDING | {"pad_token": "<nowhere>"})
    assert "'<nowhere>' has no row" in refusal(model)


@pytest.mark.parametrize("length", [0, -1, 1, 2, 7, 0.5])
def test_a_longest_text_of_next_to_nothing_is_refused(model, tiny_sst2, length):
    change(model, "tokenizer_config.json", model_max_length=length)
    with pytest.raises(ModelUnreadable, match=r"model_max_length is .*, and must be a number from 8"):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


@pytest.mark.parametrize("length", [16.0, 16.5, 1e30, 10**30, None, 16])
def test_odd_longest_texts_are_taken(model, tiny_sst2, length):
    import torch

    from pruning_core.models.load import load_task_model

    change(model, "tokenizer_config.json", model_max_length=length)
    check_local_inputs(tiny.tiny_spec(model, tiny_sst2))
    loaded = load_task_model(model, "text-classification", torch.device("cpu"))
    assert type(loaded.longest(32)) is int
    assert loaded.longest(32) == (16 if length is not None and length < 32 else 32)


def test_the_classes_of_tokenizers_are_those_of_transformers():
    assert json.loads(tokenizer_classes.PLACE.read_text()) == json.loads(tokenizer_classes.text())


@pytest.mark.parametrize("name", ["T5Tokenizer", "T5TokenizerFast", "GPT2Tokenizer", "LlamaTokenizer", "XLMRobertaTokenizer"])
def test_a_class_for_another_kind_of_vocabulary_is_refused(model, name):
    change(model, "tokenizer_config.json", tokenizer_class=name)
    assert f"reads this model's tokenizer as a {name.removesuffix('Fast')}, which needs a " in refusal(model)


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "BertTokenizer", "BertTokenizerFast", "MyTokenizer", None])
def test_a_class_that_takes_the_vocabulary_is_taken(model, name):
    change(model, "tokenizer_config.json", tokenizer_class=name)
    check_checkpoint(model)


@pytest.mark.parametrize(("family", "refused"), [("gpt2", "GPT2Tokenizer"), ("t5", "T5Tokenizer"), ("llama", None)])
def test_the_usual_class_of_a_model_type_reads_a_tokenizer_that_names_none(tmp_path, family, refused):
    ARCHITECTURES[family].write_for("summarization" if family == "t5" else "text-generation", tmp_path / "m")
    change(tmp_path / "m", "tokenizer_config.json", tokenizer_class=None)
    if refused is None:
        check_checkpoint(tmp_path / "m")
    else:
        assert f"reads this model's tokenizer as a {refused}, which needs a" in refusal(tmp_path / "m")


@pytest.mark.parametrize(
    ("entry", "says"),
    [({"return_dict": False}, "return_dict is false, and must be true"), ({"chunk_size_feed_forward": 3}, "must be 0")],
)
def test_settings_that_change_what_a_model_returns_are_refused(model, entry, says):
    change(model, "config.json", **entry)
    assert says in refusal(model)


def test_chunks_of_one_are_taken(model):
    change(model, "config.json", chunk_size_feed_forward=1, return_dict=True)
    check_checkpoint(model)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"image_mean": [0.5, 0.5]}, "image_mean must be a number, or a list"),
        ({"image_mean": None}, "image_mean must be a number, or a list"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std must be numbers above 0"),
        ({"image_std": "0.5"}, "image_std must be numbers above 0"),
        ({"size": {"height": 20, "width": 16}}, "size must be height 16 and width 16, the model's image_size"),
        ({"size": {"height": 0, "width": 16}}, "size must be an object with height and width"),
        ({"size": 10**12}, "size must be an object with height and width"),
        ({"do_resize": False}, "do_resize must be true: the model takes images of one size only"),
        ({"do_rescale": "yes"}, "do_rescale must be true or false"),
        ({"rescale_factor": "x"}, "rescale_factor must be a number"),
        ({"resample": None}, "resample must be a whole number from 0 to 5"),
        ({"size": None}, "size must be an object with height and width"),
        ({"size": {"height": 16, "width": 16, "depth": 16}}, "size must be an object with height and width"),
        ({"resample": 9}, "resample must be a whole number from 0 to 5"),
        ({"image_processor_type": 5}, "image_processor_type must be the name of a class"),
    ],
)
def test_image_processors_that_make_no_image_of_the_model_are_refused(images, entry, says):
    change(images.folder / "model", "preprocessor_config.json", **entry)
    with pytest.raises(ModelUnreadable) as refused:
        check_local_inputs(PruneSpec.model_validate(images.request()))
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "entry",
    [
        *(
            {"image_mean": 0.5},
            {"image_mean": None, "image_std": None, "do_normalize": False},
            {"rescale_factor": None, "do_rescale": False},
        ),
        *({"size": 16}, {"do_rescale": False}, {"image_processor_type": "ViTImageProcessor"}),
    ],
)
def test_other_image_processors_are_taken(images, entry):
    change(images.folder / "model", "preprocessor_config.json", **entry)
    check_local_inputs(PruneSpec.model_validate(images.request()))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "vit"
    folder.mkdir()
    tasks.write_task_model(folder / "model", "image-classification")
    tasks.write_task_data(folder / "data", "image-classification", rows=8)
    target = {"metric": "macs", "keep": 0.6}
    said = {"model": "model", "task": tasks.task_of("image-classification", Path("data")), "target": target}
    (folder / "spec.json").write_text(json.dumps(said))
    return folder


@pytest.fixture
def images(pictures, tmp_path):
    return copy_of(pictures, tmp_path / "request")


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_tokenizer_without_padding_is_refused_for_any_model_type(model, tiny_sst2, kind):
    change(model, "tokenizer_config.json", pad_token=None, tokenizer_class=kind)
    with pytest.raises(ModelUnreadable, match="has no padding token"):
        check_local_inputs(tiny.tiny_spec(model, tiny_sst2))


@pytest.mark.parametrize(
    ("said", "metric", "refused"),
    [
        ({"num_beams": 2}, "rougeL", True),
        ({"decoder_start_token_id": "x"}, "rougeL", True),
        ({"decoder_start_token_id": 0}, "rougeL", False),
        ({"bos_token_id": 0}, "rougeL", False),
        ({"num_beams": 2}, "loss", False),
    ],
)
def test_settings_of_writing_that_name_no_first_token_are_refused(tmp_path, said, metric, refused):
    change(tmp_path, "generation_config.json", **said)
    task = TaskSpec.model_validate(tasks.task_of("summarization", tmp_path) | {"metric": metric})
    if refused:
        with pytest.raises(ModelUnreadable, match="decoder_start_token_id, with which a text begins"):
            check_writing(task, tmp_path)
    else:
        check_writing(task, tmp_path)


def test_the_token_between_joined_texts_needs_a_row_and_padding_may_be_it(tmp_path):
    tasks.write_task_model(tmp_path / "model", "text-generation")
    tasks.write_task_data(tmp_path / "data", "text-generation", rows=8)
    said = {"model": str(tmp_path / "model"), "target": {"metric": "macs", "keep": 0.6}}
    spec = PruneSpec.model_validate(said | {"task": tasks.task_of("text-generation", tmp_path / "data")})
    change(tmp_path / "model", "tokenizer_config.json", eos_token="<new>")
    with pytest.raises(ModelUnreadable, match="'<new>' has no row"):
        check_local_inputs(spec)
    change(tmp_path / "model", "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelUnreadable, match="has no padding token"):
        check_local_inputs(spec)
    change(tmp_path / "model", "tokenizer_config.json", pad_token="word1")
    check_local_inputs(spec)


def test_a_tokenizer_without_a_mask_cannot_fill_masks(tmp_path):
    tasks.write_task_model(tmp_path / "model", "fill-mask")
    tasks.write_task_data(tmp_path / "data", "fill-mask", rows=8)
    said = {"model": str(tmp_path / "model"), "target": {"metric": "macs", "keep": 0.6}}
    spec = PruneSpec.model_validate(said | {"task": tasks.task_of("fill-mask", tmp_path / "data")})
    check_local_inputs(spec)
    change(tmp_path / "model", "tokenizer_config.json", mask_token=None, tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(DatasetInvalid, match="has no mask token"):
        check_local_inputs(spec)
