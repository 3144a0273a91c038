"""Text that the dense model writes itself, as calibration samples."""

from __future__ import annotations

import shutil
from array import array

import pytest
import torch
from pydantic import ValidationError

from pruning_core.errors import NotFinite
from pruning_core.evidence.writing import interleaved, write
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.calibration import texts_side_by_side
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.batch import TokenLabelled
from pruning_core.tasks.language import end_tokens
from tests import tiny
from tests.exported import write_llama


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer")
    write_llama(folder / "model")
    tiny.write_jsonl(folder / "texts")
    return folder


@pytest.fixture(scope="module")
def model(place):
    return load_task_model(place / "model", "text-generation", torch.device("cpu"))


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def spec_of(place, task="text-generation", **calibration):
    return PruneSpec.model_validate(
        {
            "model": str(place / "model"),
            "task": {"type": task, "dataset": str(place / "texts"), "columns": {"text": ["text"]}, "metric": "loss"},
            "target": {"metric": "macs", "keep": 0.7},
            "calibration": {"samples": 16, "max_length": 16, "batch_tokens": 64} | calibration,
            "latency": {"batch": 2, "length": 16, "repeats": 3},
        }
    )


def test_texts_are_as_long_as_asked_and_follow_from_the_seed(model):
    told = []
    texts = write(model, 70, 12, draws(), told.append)
    assert [len(text) for text in texts] == [12] * 70
    assert told == [64, 70]
    assert texts == write(model, 70, 12, draws())
    assert texts != write(model, 70, 12, draws(1))


@pytest.mark.parametrize("length", [2, 3])
def test_texts_may_be_as_short_as_a_users(model, length):
    assert [len(text) for text in write(model, 3, length, draws())] == [length] * 3


def test_weights_that_are_not_finite_are_told_of_by_the_scores(place, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(place / "model", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    spec = spec_of(place)
    with pytest.raises(NotFinite, match=r"layers\.1\.mlp\.down_proj"):
        run(spec.but(model=str(tmp_path / "model")), tmp_path / "bundle")


def test_torchs_own_draws_are_left_as_they_were(model):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    write(model, 2, 8, draws())
    assert torch.equal(torch.rand(1), expected)


def test_texts_begin_as_the_tokenizer_begins_them_and_no_first_token_is_special(model):
    tokenizer = model.tokenizer
    texts = write(model, 40, 6, draws())
    begins = [tokenizer.bos_token_id] if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] != [None] else []
    firsts = {text[len(begins)] for text in texts}
    assert all(list(text[: len(begins)]) == begins for text in texts)
    assert not firsts & set(tokenizer.all_special_ids)
    assert len(firsts) > 10


def test_what_the_model_finds_likely_is_written_more_often(model):
    """A text of a random model is far from uniform, and the model is surer of its own writing than of random tokens."""
    texts = torch.tensor([list(text) for text in write(model, 64, 24, draws())])
    noise = torch.randint(5, model.entries, texts.shape, generator=draws())

    def loss(ids):
        logits = model.model(ids).logits[:, :-1]
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))

    with torch.no_grad():
        assert loss(texts) < loss(noise) - 0.3


def test_texts_lie_between_the_samples_so_that_held_out_ones_are_of_both(model):
    blocks = [array("l", [place] * 4) for place in range(8)]
    encoded = TokenLabelled(model.tokenizer, {"input_ids": blocks, "attention_mask": blocks}, None, blocks)
    mixed = interleaved(encoded, [0, 1, 2, 3, 5, 6], [array("l", [100 + place] * 4) for place in range(3)])
    firsts = [block[0] for block in mixed.columns["input_ids"]]
    assert [value for value in firsts if value < 100] == [0, 1, 2, 3, 5, 6]
    assert [value for value in firsts if value >= 100] == [100, 101, 102]
    assert {value >= 100 for value in firsts[-3:]} == {True, False}
    assert mixed.token_labels == mixed.columns["input_ids"]
    assert all(list(mask) == [1] * 4 for mask in mixed.columns["attention_mask"])


def test_long_texts_are_written_by_few_at_a_time():
    assert [texts_side_by_side(length) for length in (2, 128, 512, 8192)] == [64, 64, 16, 1]


def test_how_many_are_written(place):
    said, unsaid = spec_of(place, self_written=0.25).calibration, spec_of(place).calibration
    assert unsaid.written_share("text-generation", paged=False) == 0.5
    assert unsaid.written_share("text-generation", paged=True) == 0
    assert unsaid.written_share("fill-mask", paged=False) == 0
    assert said.written_share("text-generation", paged=True) == 0.25


def test_only_text_generation_writes(place):
    with pytest.raises(ValidationError, match="only models of text-generation write texts"):
        spec_of(place, task="fill-mask", self_written=0.5)
    assert spec_of(place, task="fill-mask", self_written=0).calibration.self_written == 0


def test_a_spec_that_does_not_say_is_written_as_before(place):
    assert "self_written" not in spec_of(place).model_dump(mode="json")["calibration"]


@pytest.mark.parametrize(("share", "count"), [(None, 8), (0, 0), (1, 16)])
def test_a_report_says_how_many_samples_the_model_wrote(place, tmp_path, share, count):
    report = run(spec_of(place, **({} if share is None else {"self_written": share})), tmp_path / "bundle")
    assert (report.data.samples, report.data.self_written) == (16 + count, count)
    card = (tmp_path / "bundle" / "README.md").read_text()
    page = (tmp_path / "bundle" / "report.html").read_text()
    for text in (card, page):
        assert (f"{count} of them written by the dense model itself" in text) == bool(count)


def test_no_text_ends(model):
    texts = write(model, 64, 24, draws())
    opening = 1 if model.tokenizer("")["input_ids"][:1] == [model.tokenizer.bos_token_id] != [None] else 0
    written = {token for text in texts for token in text[opening:]}
    assert not written & set(end_tokens(model))
    assert len(written) > 20


def test_a_copy_in_bfloat16_writes_and_the_model_stays_in_float32(model):
    texts = write(model, 8, 12, draws(), dtype=torch.bfloat16)
    assert [len(text) for text in texts] == [12] * 8
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}


def test_writing_ends_where_there_is_enough(model):
    texts = write(model, 300, 6, draws(), enough=lambda done: done >= 100)
    assert len(texts) == 128
    assert texts == write(model, 300, 6, draws())[:128]
