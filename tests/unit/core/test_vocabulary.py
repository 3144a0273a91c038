"""A vocabulary with fewer tokens: the same tokens for every text, the same outputs, and bundles that are proven."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.kept.folder import KeptFolder
from pruning_core.measure.ledger.made import docstrings, source_code
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.vocabulary import VocabularySpec
from pruning_core.vocabulary.cut import _tokens, cut_vocabulary
from pruning_core.vocabulary.rules import Rules
from pruning_core.vocabulary.weights import cut_settings, ids_in
from tests import tiny
from tests.exported import write_llama
from tests.tasks import task_of, write_task_data, write_task_model

RUSSIAN = "\u0441\u044a\u0435\u0448\u044c \u0436\u0435 \u0435\u0449\u0451 \u0431\u0443\u043b\u043e\u043a"
TRAINED_ON = [*docstrings()[:150], *([RUSSIAN] * 50)]
SPECIAL = ["<unk>", "<s>", "</s>", "<mask>"]


def byte_level():
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    found.train_from_iterator(
        TRAINED_ON, trainers.BpeTrainer(vocab_size=1500, special_tokens=SPECIAL, initial_alphabet=letters)
    )
    return found


def pieces_with_bytes():
    """Make a BPE as Llama 2 has it: a mark for spaces, and bytes for characters that have no token."""
    found = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    found.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    spelt = [f"<0x{byte:02X}>" for byte in range(256)]
    found.train_from_iterator(
        [word for text in TRAINED_ON for word in text.split()],
        trainers.BpeTrainer(vocab_size=1500, special_tokens=[*SPECIAL, *spelt]),
    )
    whole = json.loads(found.to_str())
    whole["added_tokens"] = [entry for entry in whole["added_tokens"] if entry["content"] in SPECIAL]  # bytes are none
    return Tokenizer.from_str(json.dumps(whole))


def words_with_ends():
    """Make a BPE as CLIP has it, whose last letters are marked."""
    found = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.train_from_iterator(
        TRAINED_ON, trainers.BpeTrainer(vocab_size=1500, special_tokens=SPECIAL, end_of_word_suffix="</w>")
    )
    return found


def unigram():
    found = Tokenizer(models.Unigram())
    found.normalizer = normalizers.NFKC()
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.decoder = decoders.Metaspace()
    found.train_from_iterator(
        TRAINED_ON, trainers.UnigramTrainer(vocab_size=1200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    )
    return found


def word_pieces():
    found = Tokenizer(models.WordPiece(unk_token="<unk>"))
    found.normalizer = normalizers.BertNormalizer()
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.train_from_iterator(TRAINED_ON, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=SPECIAL))
    found.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return found


def whole_words():
    found = Tokenizer(models.WordLevel(unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.train_from_iterator(TRAINED_ON, trainers.WordLevelTrainer(special_tokens=SPECIAL))
    return found


KINDS = {own.__name__: own for own in (byte_level, pieces_with_bytes, words_with_ends, unigram, word_pieces, whole_words)}


@pytest.fixture(scope="module", params=KINDS)
def rules(request):
    return Rules(KINDS[request.param]())


def cut(rules, texts, **spec):
    """Return the tokens that stay, the new tokenizer, and the new ids."""
    tokens = _tokens(rules, VocabularySpec.model_validate(spec), texts)
    kept = sorted(rules.ids[token] for token in tokens)
    number = {old: new for new, old in enumerate(kept)}
    return tokens, Tokenizer.from_str(json.dumps(rules.cut_to(tokens, number))), number


def test_every_text_becomes_the_same_tokens(rules):
    texts = [*docstrings()[100:180], "x", "", "  two  spaces ", "n\u00e4chste \u4e2d\u6587 \U0001f600 \u0436", "<s> spelt </s>"]
    tokens, after, number = cut(rules, texts)
    assert len(tokens) < len(rules.ids) * 0.9
    for text in texts:
        before, found = rules.tokenizer.encode(text), after.encode(text)
        if rules.kind == "Unigram":  # paths of the same score
            assert sorted(found.tokens) == sorted(before.tokens)
        else:
            assert found.tokens == before.tokens
        assert sorted(found.ids) == sorted(number[old] for old in before.ids)


def test_ids_are_without_gaps_and_in_order(rules):
    tokens, after, number = cut(rules, docstrings()[:5])
    found = after.get_vocab(with_added_tokens=True)
    assert sorted(found.values()) == list(range(len(tokens)))
    assert {token: number[rules.ids[token]] for token in tokens} == found


def test_other_texts_are_still_spelt(rules):
    """What is known by no whole token any more is spelt by bytes or characters; only whole words have none."""
    if rules.kind == "WordLevel":
        pytest.skip("whole words are not spelt by anything")
    _, after, _ = cut(rules, ["a few words"])
    for text in source_code()[:5]:
        words = text.split()
        lost = sum("<unk>" in after.encode(word).tokens for word in words)
        assert lost <= sum("<unk>" in rules.tokenizer.encode(word).tokens for word in words)


def test_a_language_keeps_its_script_and_no_other(rules):
    tokens, _, _ = cut(rules, ["a few words"], keep=["ru"])
    plain = {token: rules.letters(token) or "" for token in rules.own}
    cyrillic = {
        token
        for token, text in plain.items()
        if len(text.strip()) > (rules.kind != "Unigram") and all("\u0400" <= own <= "\u04ff" for own in text.strip())
    }
    latin = {
        token for token, text in plain.items() if len(text.strip()) > 3 and text.strip().isascii() and text.strip().isalpha()
    }
    assert cyrillic
    assert cyrillic <= tokens
    assert len(latin & tokens) < len(latin) / 2


def test_a_list_of_tokens_keeps_them_and_the_special_ones(rules, tmp_path):
    wanted = sorted(token for token in rules.own if token.isascii() and "\n" not in token)[-40:]
    for name, text in (
        ("own.txt", "\n".join(wanted) + "\n"),
        ("own.json", json.dumps(wanted)),
        ("map.json", json.dumps(dict.fromkeys(wanted, 0))),
    ):
        (tmp_path / name).write_text(text)
        tokens, _, _ = cut(rules, [], keep=str(tmp_path / name))
        assert {*wanted, *SPECIAL} <= tokens


def test_a_token_that_is_none_is_named(rules, tmp_path):
    (tmp_path / "own.txt").write_text("nosuchtokenatall\n")
    with pytest.raises(DatasetInvalid, match="1 of the 1 listed tokens are none of this model's, such as 'nosuchtokenatall'"):
        cut(rules, [], keep=str(tmp_path / "own.txt"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("own.csv", b"a", "ends in .txt or .json"),
        ("own.txt", b"", "lists no token"),
        ("own.txt", b"\xff\xfe", "UTF-8"),
        ("own.json", b"{", "file of tokens"),
        ("own.json", b"[1]", "list of tokens"),
        (None, b"", "no such file"),
    ],
)
def test_a_bad_file_of_tokens_is_told_at_submit(tmp_path, tiny_inputs, name, data, message):
    if name is not None:
        (tmp_path / name).write_bytes(data)
    spec = tiny.tiny_spec(*tiny_inputs, vocabulary={"keep": str(tmp_path / (name or "gone.txt"))})
    with pytest.raises(DatasetInvalid, match=message) as caught:
        check_local_inputs(spec)
    assert caught.value.param == "vocabulary.keep"


@pytest.fixture(scope="module")
def tiny_inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    return tiny.write_model(folder / "model", "bert"), tiny.write_dataset(folder / "data")


@pytest.mark.parametrize(
    ("given", "keep"),
    [
        ("seen", "seen"),
        ("en", ("en",)),
        ("de, en", ("de", "en")),
        ("/a/list.txt", "/a/list.txt"),
        ({"keep": ["en", "de"]}, ("de", "en")),
    ],
)
def test_shorthands(given, keep):
    spec = tiny.tiny_spec("/m", "/d", vocabulary=given)
    assert spec.vocabulary.keep == keep


def test_an_unknown_language_is_told_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match=r"no language 'eng' is known here.*did you mean en"):
        tiny.tiny_spec("/m", "/d", vocabulary={"keep": ["eng"]})


def test_a_request_without_it_is_written_as_before():
    assert "vocabulary" not in tiny.tiny_spec("/m", "/d").model_dump(mode="json")


def test_settings_are_renumbered():
    settings = {"vocab_size": 9, "pad_token_id": 4, "text_config": {"vocab_size": 9, "eos_token_id": [4, 7]}, "hidden_size": 9}
    settings |= {"suppress_tokens": [-1, 7], "bad_words_ids": [[4], [7, 4]], "num_labels": 4, "sep_token_id": None}
    assert ids_in(settings) == {4, 7, -1}
    assert cut_settings(settings, 9, {4: 0, 7: 1, 8: 2}) == {
        "vocab_size": 3,
        "pad_token_id": 0,
        "text_config": {"vocab_size": 3, "eos_token_id": [0, 1]},
        "hidden_size": 9,
        "suppress_tokens": [-1, 1],
        "bad_words_ids": [[0], [1, 0]],
        "num_labels": 4,
        "sep_token_id": None,
    }


TASKS = ("text-classification", "token-classification", "fill-mask", "feature-extraction", "summarization", "text-generation")


@pytest.mark.parametrize("task_type", TASKS)
def test_a_bundle_with_fewer_tokens_is_proven(task_type, tmp_path):
    family = {"summarization": "t5", "text-generation": "gpt2"}.get(task_type, "bert")
    model, data = write_task_model(tmp_path / "model", task_type, family), write_task_data(tmp_path / "data", task_type)
    grow(model, 40)
    fields = {
        "model": str(model),
        "task": task_of(task_type, data),
        "target": {"metric": "params", "keep": 0.8},
        "vocabulary": "seen",
        "calibration": {"samples": 64, "max_length": 32, "batch_tokens": 256},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
    }
    report = run(PruneSpec.model_validate(fields), tmp_path / "out")
    own = report.vocabulary
    assert own is not None
    assert own.largest_difference < 1e-5
    assert own.tokens_after <= own.tokens_before - 40
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["vocab_size"] == own.tokens_after
    facts = read_checkpoint(tmp_path / "out")
    assert report.parameters.pruned == facts.parameters
    assert report.parameters.dense == read_checkpoint(model).parameters
    assert report.acceptance is not None
    assert report.acceptance.max_difference < 1e-4
    assert report.target.achieved == pytest.approx(0.8, abs=0.05) or report.target.achieved < 0.8
    assert (own.gained_nats is not None) == (task_type in ("fill-mask", "summarization", "text-generation"))


def grow(model, count):
    """Give a model's files more tokens than its data has."""
    task = json.loads((model / "config.json").read_text())["architectures"][0]
    whole = json.loads((model / "tokenizer.json").read_text())
    vocabulary = whole["model"]["vocab"]
    first = max([*vocabulary.values(), *(entry["id"] for entry in whole["added_tokens"])]) + 1
    vocabulary |= {f"unheard{place}": first + place for place in range(count)}
    (model / "tokenizer.json").write_text(json.dumps(whole))
    loaded = getattr(transformers, task).from_pretrained(model)
    torch.manual_seed(0)
    loaded.resize_token_embeddings(max(first + count, loaded.config.vocab_size + count), mean_resizing=False)
    loaded.save_pretrained(model)


def test_a_llama_is_written_by_fewer_tokens_and_generates(tmp_path):
    model = write_llama(tmp_path / "model")
    data = tiny.write_jsonl(tmp_path / "data")
    fields = {
        "model": str(model),
        "task": {"type": "text-generation", "dataset": str(data), "columns": {"text": ["text"]}, "metric": "perplexity"},
        "target": {"metric": "macs", "keep": 0.7},
        "vocabulary": "seen",
        "calibration": {"samples": 32, "max_length": 32, "batch_tokens": 512},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
    }
    report = run(PruneSpec.model_validate(fields), tmp_path / "out")
    assert any("the whole vocabulary its loss would be about" in warning for warning in report.warnings)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("word1 word2", return_tensors="pt")
    written = loaded.generate(**ids, max_new_tokens=5, do_sample=False)
    assert written.max() < report.vocabulary.tokens_after
    assert tokenizer.decode(ids["input_ids"][0], skip_special_tokens=True).split() == ["word1", "word2"]


@pytest.mark.long
def test_statistics_of_another_vocabulary_are_not_reused(tmp_path, tiny_inputs):
    kept = tmp_path / "kept"
    run(tiny.tiny_spec(*tiny_inputs), tmp_path / "whole", statistics=KeptFolder(kept))
    cut_once = run(tiny.tiny_spec(*tiny_inputs, vocabulary="seen"), tmp_path / "cut", statistics=KeptFolder(kept))
    again = run(tiny.tiny_spec(*tiny_inputs, vocabulary="seen"), tmp_path / "again", statistics=KeptFolder(kept))
    assert not any(own.reused for own in cut_once.statistics.pieces)
    assert all(own.reused for own in again.statistics.pieces)
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()


def test_ids_with_a_hidden_meaning_are_refused(tmp_path):
    """RoBERTa counts positions from the id of padding, which moves when tokens before it go."""
    words = [*tiny.WORDS, *tiny.SPECIAL[1:], "[PAD]"]
    last = len(words) - 1
    own = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.post_processor = processors.BertProcessing(("[SEP]", words.index("[SEP]")), ("[CLS]", words.index("[CLS]")))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, **names).save_pretrained(tmp_path / "model")
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2}
    config = transformers.RobertaConfig(
        vocab_size=len(words),
        pad_token_id=last,
        max_position_embeddings=last + 66,
        tokenizer_class="PreTrainedTokenizerFast",
        **sizes,
    )
    torch.manual_seed(0)
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path / "model")
    whole = load_task_model(tmp_path / "model", "text-classification", torch.device("cpu"))
    (tmp_path / "cut").mkdir()
    with pytest.raises(ModelUnreadable, match="the model's outputs would differ by up to"):
        cut_vocabulary(whole, VocabularySpec(), ["word1 word2", "word50 good"], {}, tmp_path / "cut")


def test_models_of_images_have_none():
    with pytest.raises(ValueError, match="read images and have no vocabulary"):
        tiny.tiny_spec(
            "/m",
            "/d",
            task={"type": "image-classification", "dataset": "/d", "columns": {"image": "image"}, "metric": "accuracy"},
            vocabulary="seen",
        )
