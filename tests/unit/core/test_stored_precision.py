"""Evaluation in the precision that a decoder is stored in."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning_core.data.read import read_rows
from pruning_core.machine import precision
from pruning_core.measure.quality import Evaluator
from pruning_core.measure.stored import Agreement, StoredPrecision
from pruning_core.models.load import load_task_model
from pruning_core.report.quality_words import precision_words
from pruning_core.run.pipeline import run
from pruning_core.tasks.batch import UNCOUNTED, Batch
from pruning_core.tasks.language import LanguageModel, TextGeneration
from tests import tasks, tiny

ROWS = 900  # some 11,000 tokens: more than the eight batches at which a check is worth its time


def write_decoder(folder, dtype, seed=0):
    plain = tasks.write_task_model(folder, "text-generation", seed=seed)
    AutoModelForCausalLM.from_pretrained(plain, dtype=dtype).save_pretrained(plain)
    return plain


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("text"), random.Random(1)
    for split in ("train", "validation"):
        rows = [json.dumps({"text": " ".join(rng.choices(tiny.WORDS, k=rng.randint(3, 20)))}) for _ in range(ROWS)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def spec_of(model, text, **changes):
    task = tasks.task_of("text-generation", text)
    return tiny.tiny_spec(model, text, task=task, **({"evaluation": {"max_length": 32}} | changes))


def loaded(model):
    return load_task_model(model, "text-generation", torch.device("cpu"))


def chosen(spec, dense, pruned, *, faster=True):
    """Judge a checkpoint as a job does; return its quality, the choice, and what the check saw."""
    evaluator = Evaluator(spec, dense, read_rows(spec.task, "validation"))
    stored = StoredPrecision(spec, dense, evaluator.tokens, lambda *_: faster)
    with stored.evaluated(pruned) as found:
        quality = evaluator.compare(pruned, lambda _step: None)
    return quality.but(precision=found), evaluator, stored


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_decoder_is_judged_as_transformers_computes_without_a_dtype(dtype, text, tmp_path):
    folder, other = write_decoder(tmp_path / "a", dtype), write_decoder(tmp_path / "b", dtype, seed=1)
    spec, dense, pruned = spec_of(folder, text), loaded(folder), loaded(other)
    quality, evaluator, _ = chosen(spec, dense, pruned)
    assert quality.dtype == str(dtype).removeprefix("torch.")
    assert "of the likeliest tokens are those of float32" in quality.precision.reason
    plain = AutoModelForCausalLM.from_pretrained(other).eval()
    assert plain.dtype == dtype
    lost = count = 0
    with torch.inference_mode():
        for batch in evaluator.tokens.batches:
            logits = plain(**batch.inputs).logits[:, :-1].float()
            truth = batch.labels[:, 1:].masked_fill(batch.labels[:, 1:] == UNCOUNTED, 0)
            losses = -logits.log_softmax(-1).gather(-1, truth[..., None])[..., 0]
            counted = batch.labels[:, 1:] != UNCOUNTED
            lost, count = lost + float(losses[counted].double().sum()), count + int(counted.sum())
    assert quality.pruned == pytest.approx(math.exp(lost / count), rel=1e-6)
    exact = Evaluator(spec, dense, read_rows(spec.task, "validation")).compare(pruned, lambda _step: None)
    assert quality.pruned != exact.pruned
    assert quality.pruned == pytest.approx(exact.pruned, rel=0.01)
    assert precision_words(quality) == f", in {quality.dtype}"


def test_the_weights_are_float32_again_and_the_same_whatever_happens(text, tmp_path):
    folder = write_decoder(tmp_path / "a", torch.bfloat16)
    spec, dense, pruned = spec_of(folder, text), loaded(folder), loaded(folder)
    before = {name: own.clone() for name, own in pruned.model.state_dict().items()}
    _, _, stored = chosen(spec, dense, pruned)

    def fail_in_between():
        with stored.evaluated(pruned):
            assert {own.dtype for own in pruned.model.parameters()} == {torch.bfloat16}
            raise ValueError("in between")

    with pytest.raises(ValueError, match="in between"):
        fail_in_between()
    for model in (dense, pruned):
        assert all(torch.equal(own, before[name]) for name, own in model.model.state_dict().items())
        assert model.model.dtype == torch.float32


def test_a_float32_model_has_no_choice_and_its_figures_stay(text, tmp_path):
    folder = write_decoder(tmp_path / "a", torch.float32)
    spec, dense = spec_of(folder, text), loaded(folder)
    quality, _, _ = chosen(spec, dense, dense)
    assert quality.precision is None
    assert quality.dtype == "float32"
    assert precision_words(quality) == ""


@pytest.mark.parametrize(
    "changes",
    [{"evaluation": {"max_length": 32, "precision": "float32"}}, {"evaluation": {"max_length": 32, "max_samples": 200}}],
    ids=["asked", "few rows"],
)
def test_float32_where_it_is_asked_for_or_the_rows_are_few(changes, text, tmp_path):
    folder = write_decoder(tmp_path / "a", torch.bfloat16)
    quality, _, _ = chosen(spec_of(folder, text, **changes), loaded(folder), loaded(folder))
    assert quality.precision is None


def test_a_search_for_a_floor_is_judged_in_float32_as_its_trials_are(text, tmp_path):
    folder = write_decoder(tmp_path / "a", torch.bfloat16)
    spec = spec_of(folder, text, target=None, quality_floor=0.9)
    quality, _, _ = chosen(spec, loaded(folder), loaded(folder))
    assert quality.precision is None


def test_float32_where_the_device_is_no_faster(text, tmp_path):
    folder = write_decoder(tmp_path / "a", torch.bfloat16)
    quality, _, _ = chosen(spec_of(folder, text), loaded(folder), loaded(folder), faster=False)
    assert (quality.dtype, quality.precision.disagrees) == ("float32", False)
    assert "no faster than float32" in quality.precision.reason


def test_float32_where_the_two_are_not_stored_alike(text, tmp_path):
    folder, other = write_decoder(tmp_path / "a", torch.bfloat16), write_decoder(tmp_path / "b", torch.float32)
    quality, _, _ = chosen(spec_of(folder, text), loaded(folder), loaded(other))
    assert quality.precision is None


def test_a_weight_that_the_type_cannot_hold_is_not_rounded(text, tmp_path):
    folder = write_decoder(tmp_path / "a", torch.bfloat16)
    dense, pruned = loaded(folder), loaded(folder)
    with torch.no_grad():
        next(iter(pruned.model.parameters())).mul_(1 + 2**-12)
    quality, _, _ = chosen(spec_of(folder, text), dense, pruned)
    assert quality.dtype == "float32"
    assert "not all weights are the same in bfloat16" in quality.precision.reason


def blurred(folder):
    """A decoder whose words are told apart by less than bfloat16 can: its likeliest tokens change with every rounding."""
    model = loaded(folder)
    with torch.no_grad():
        head = model.model.get_output_embeddings().weight
        head.copy_((head[:1] + 2**-7 * head).to(torch.bfloat16))
    return model


def test_a_checkpoint_that_disagrees_is_judged_in_float32_beside_a_dense_model_in_float32(text, tmp_path):
    folder = write_decoder(tmp_path / "a", torch.bfloat16)
    spec, dense, good, bad = spec_of(folder, text), loaded(folder), loaded(folder), blurred(folder)
    evaluator = Evaluator(spec, dense, read_rows(spec.task, "validation"))
    stored = StoredPrecision(spec, dense, evaluator.tokens, lambda *_: True)
    found = {}
    for name, pruned in (("good", good), ("bad", bad), ("good again", good)):
        with stored.evaluated(pruned) as choice:
            found[name] = evaluator.compare(pruned, lambda _step: None).but(precision=choice)
    assert [own.dtype for own in found.values()] == ["bfloat16", "float32", "bfloat16"]
    assert found["bad"].precision.disagrees
    assert "changes the pruned model's answers too much" in found["bad"].precision.reason
    assert found["bad"].dense != found["good"].dense == found["good again"].dense, "a dense model in each precision"
    assert found["good"].dense == found["good"].pruned, "the same model in the same precision"


def test_an_agreement_that_is_no_number_holds_nothing():
    exact = [torch.tensor([2.0, 1.0, 2.0])]
    assert Agreement.of(exact, exact).holds
    assert not Agreement.of(exact, [torch.tensor([math.nan, 1.0, 2.0])]).holds
    assert not Agreement.of(exact, [torch.tensor([2.0, 1.0, 3.0])]).holds
    assert not Agreement.of(exact, [torch.tensor([2.1, 1.0, 2.0])]).holds


@pytest.mark.long
def test_a_job_says_in_which_precision_it_was_judged(text, tmp_path):
    folder = write_decoder(tmp_path / "a", torch.bfloat16)
    report = run(spec_of(folder, text), tmp_path / "out", device="cpu")
    assert report.stored_dtype == "bfloat16"
    assert report.quality.precision.dtype in ("bfloat16", "float32"), "as this processor is faster"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["quality"]["precision"]["reason"]


def test_the_product_decides_and_types_without_instructions_are_not_tried(monkeypatch):
    asked = (torch.device("cpu"), 64, 64)
    assert not precision.is_faster(torch.float32, *asked)
    precision.is_faster.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(precision, "timed", lambda *_: pytest.fail("emulated products take minutes"))
    assert not precision.is_faster(torch.bfloat16, *asked)
    assert not precision.is_faster(torch.float16, *asked)
    precision.is_faster.cache_clear()


def test_a_few_rows_at_a_time_keep_the_same_of_each_sample():
    generator = torch.Generator().manual_seed(0)
    outputs, truth = torch.randn(3, 40, 97, generator=generator), torch.randint(0, 97, (3, 40), generator=generator)
    truth[1, 20:] = UNCOUNTED
    truth[2] = UNCOUNTED
    batch = Batch({"input_ids": truth}, torch.arange(3), truth)
    whole = list(LanguageModel.condense(TextGeneration(), outputs, batch))
    for one, other in zip(TextGeneration().condense(outputs, batch), whole, strict=True):
        assert torch.equal(one[1:], other[1:])
        assert float(one[0]) == pytest.approx(float(other[0]), rel=1e-6)
