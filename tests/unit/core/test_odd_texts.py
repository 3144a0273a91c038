"""Texts and decoders that are unlike what calibration expects: each is right, or says what may be wrong, in a real run."""

from __future__ import annotations

import json
import random
import re
import shutil
from array import array

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pruning_core.checks.request import check_local_inputs
from pruning_core.evidence.cache import ActivationCache
from pruning_core.evidence.documents import shared_out
from pruning_core.evidence.states import StatePlan, plan_states
from pruning_core.measure.ledger.made import docstrings
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from tests import tiny
from tests.exported import write_llama
from tests.unit.core.test_ledger import write_decoder

BADLY = "predicts the calibration text badly"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("odd") / "model")


def words(count, of=tiny.WORDS, seed=0):
    return " ".join(random.Random(seed).choices(of, k=count))


def write_texts(folder, train, validation=None):
    folder.mkdir()
    validation = [words(20, seed=place) for place in range(60)] if validation is None else validation
    for split, texts in (("train", train), ("validation", validation)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return folder


def spec_of(model, data, **calibration):
    return PruneSpec.model_validate(
        {
            "model": str(model),
            "task": {"type": "text-generation", "dataset": str(data), "columns": {"text": ["text"]}, "metric": "perplexity"},
            "target": {"metric": "macs", "keep": 0.5},
            "calibration": {"samples": 32, "max_length": 32, "batch_tokens": 512} | calibration,
            "evaluation": {"max_length": 32},
            "latency": {"batch": 2, "length": 16, "repeats": 3},
        }
    )


def draws():
    return torch.Generator().manual_seed(0)


def of_lengths(*lengths):
    """Return documents whose tokens count from a thousand times the document's number."""
    return [array("l", range(1000 * place, 1000 * place + length)) for place, length in enumerate(lengths)]


# --- one long document --------------------------------------------------------------------------------------------------


def test_documents_that_are_no_eighth_stay_as_they_are():
    documents = of_lengths(*[100] * 20, 250)
    assert shared_out(documents, 2000, draws()) == documents


def test_of_a_long_document_a_piece_stays_that_begins_anywhere():
    documents = of_lengths(*[100] * 20, 900)
    found = shared_out(documents, 2000, draws())
    assert found[:20] == documents[:20]
    piece = list(found[20])
    assert len(piece) == 250, "an eighth of 2000"
    assert piece == list(range(piece[0], piece[0] + 250)), "in one piece"
    starts = {shared_out(documents, 2000, torch.Generator().manual_seed(seed))[20][0] for seed in range(40)}
    assert min(starts) < 20_200 < 20_450 < max(starts)


@pytest.mark.parametrize(
    ("lengths", "wanted", "kept"),
    [
        ((10, 10, 900), 200, (10, 10, 180)),
        ((500, 40, 600), 301, (131, 40, 131)),
        ((100, 100), 1000, (100, 100)),
        ((5000,), 1000, (1000,)),
    ],
    ids=["others too few", "two share the rest", "all too few", "alone"],
)
def test_where_the_others_have_too_few_a_document_gives_more_and_no_token_is_lacking(lengths, wanted, kept):
    found = shared_out(of_lengths(*lengths), wanted, draws())
    assert tuple(map(len, found)) == kept
    assert sum(kept) >= min(wanted, sum(lengths))


@pytest.mark.parametrize("others", [60, 4])
@pytest.mark.long
def test_a_document_a_thousand_times_as_long_is_not_the_calibration(llama, tmp_path, others):
    """Its words are its own, so that the widths that stay would be another model's; the tokens in the evidence tell."""
    from pruning_core.data.read import read_rows
    from pruning_core.evidence.clock import StageClock
    from pruning_core.evidence.gathering import gather_evidence
    from pruning_core.models.load import load_task_model

    book = words(20_000, of=tiny.WORDS[:5])
    data = write_texts(tmp_path / "data", [book, *(words(20, of=tiny.WORDS[5:], seed=place) for place in range(others))])
    spec = spec_of(llama, data, self_written=0)
    dense = load_task_model(llama, "text-generation", torch.device("cpu"))
    evidence = gather_evidence(spec, dense, read_rows(spec.task, "train"), None, StageClock(lambda _now: None))
    tokens = torch.cat([batch.inputs["input_ids"][batch.real] for batch in evidence.calibration.batches])
    of_book = dense.tokenizer.convert_tokens_to_ids(tiny.WORDS[:5])
    share = float(torch.isin(tokens, torch.tensor(of_book)).double().mean())
    assert len(tokens) == 32 * 32
    assert share == pytest.approx(0.125 if others == 60 else 1 - 4 * 22 / 1024, abs=0.01)
    report = run(spec, tmp_path / "bundle")
    said = [warning for warning in report.warnings if "of one document" in warning]
    assert bool(said) == (others == 4)
    if said:
        assert "91% of the calibration text is of one document, as the other 4" in said[0]


# --- too little text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["word1 word2 good"], "makes one sample of 5 tokens where 32 of 32 were asked for"),
        ([words(2, seed=place) for place in range(100)], "makes 13 samples of 32 tokens where 32 of 32 were asked for"),
    ],
    ids=["shorter than a block", "many rows of two words"],
)
@pytest.mark.long
def test_text_that_is_too_short_is_said_in_samples_and_not_in_rows(llama, tmp_path, texts, says):
    report = run(spec_of(llama, write_texts(tmp_path / "data", texts)), tmp_path / "bundle")
    advice = "all of it was used: give more text, or let the model write more of its own (calibration.self_written)"
    found = [warning for warning in report.warnings if "training" in warning]
    assert found == [f"the training text {says}; {advice}"]


def test_the_check_says_before_the_job_that_text_is_surely_too_short(llama, tmp_path):
    short = write_texts(tmp_path / "short", [words(3, seed=place) for place in range(40)])
    enough = write_texts(tmp_path / "enough", [words(20, seed=place) for place in range(40)])
    told, untold = (check_local_inputs(spec_of(llama, data)).findings.notes for data in (short, enough))
    assert [note for note in told if re.search(r"have \d+ bytes in all, too few for 32 calibration samples of 32 tokens", note)]
    assert not [note for note in untold if "bytes in all" in note]


@pytest.mark.long
def test_enough_text_in_few_rows_is_enough(llama, tmp_path):
    report = run(spec_of(llama, write_texts(tmp_path / "data", [words(600, seed=place) for place in range(4)])), tmp_path / "b")
    assert report.data.samples == 32 + 16
    assert not [warning for warning in report.warnings if "training" in warning or "calibration" in warning]


# --- text that the model hardly knows -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Train a decoder of bytes on half of the standard library's docstrings; return its folder and the other half."""
    folder = write_decoder(tmp_path_factory.mktemp("reader") / "model")
    texts = docstrings()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(tokenizer("\n".join(texts[::2]), verbose=False)["input_ids"])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(0.1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)
    drawn = draws()
    for _ in range(400):
        starts = torch.randint(len(ids) - 64, (16,), generator=drawn)
        batch = ids[starts[:, None] + torch.arange(64)]
        model(batch, labels=batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval().save_pretrained(folder)
    return folder, texts[1::2]


GERMAN = ["der", "die", "das", "Häuser", "Straßen", "grün", "läuft", "schnell", "über", "Brücke", "Mädchen", "müde", "zwölf"]


@pytest.mark.parametrize("kind", ["held out", "german", "code"])
@pytest.mark.long
def test_text_of_another_language_is_said(reader, tmp_path, kind):
    folder, rest = reader
    made = {
        "held out": rest,
        "german": [words(40, of=GERMAN, seed=place) for place in range(80)],
        "code": [f"x{n}=[{n * 7919 % 9973},{{{n}:0x{n * 104729:08X}}}];Z[{n}]+=Q<<{n % 31}|~{n * 31}&W" for n in range(200)],
    }
    report = run(spec_of(folder, write_texts(tmp_path / "data", made[kind], rest[:60]), max_length=64), tmp_path / "bundle")
    said = [warning for warning in report.warnings if BADLY in warning]
    assert len(said) == (kind != "held out"), report.warnings


@pytest.mark.long
def test_without_texts_of_the_models_own_nothing_is_compared(reader, tmp_path):
    folder, rest = reader
    data = write_texts(tmp_path / "data", [words(40, of=GERMAN, seed=place) for place in range(80)], rest[:60])
    report = run(spec_of(folder, data, self_written=0), tmp_path / "bundle")
    assert not [warning for warning in report.warnings if BADLY in warning]


# --- decoders -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_tokenizer_that_adds_no_token_of_beginning(llama, tmp_path):
    """The model has such a token, the tokenizer adds it to nothing: as the model is served, so it is calibrated."""
    from tokenizers import Tokenizer

    shutil.copytree(llama, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["post_processor"] = None
    Tokenizer.from_str(json.dumps(stored)).save(str(path))
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"bos_token": "[CLS]", "eos_token": "[SEP]"}))
    data = write_texts(tmp_path / "data", [words(7, seed=place) for place in range(200)])
    report = run(spec_of(tmp_path / "model", data), tmp_path / "bundle")
    assert (report.data.samples, report.data.tokens) == (48, 48 * 32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "bundle")
    assert tokenizer.bos_token == "[CLS]"
    assert tokenizer.bos_token_id not in tokenizer("word1 good")["input_ids"]
    assert not [own for own in report.warnings if "token" in own]


@pytest.mark.long
def test_tied_embeddings_stay_one_matrix_and_are_counted_once(llama, tmp_path):
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    shutil.copytree(llama, tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    assert "lm_head.weight" not in load_file(tmp_path / "model" / "model.safetensors")
    report = run(
        spec_of(tmp_path / "model", write_texts(tmp_path / "data", [words(20, seed=n) for n in range(120)])), tmp_path / "b"
    )
    written = load_file(tmp_path / "b" / "model.safetensors")
    assert "lm_head.weight" not in written
    assert report.parameters.pruned == sum(tensor.numel() for tensor in written.values())
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert found.lm_head.weight is found.model.embed_tokens.weight


@pytest.mark.parametrize("size", [3e3, 2e5])
@pytest.mark.long
def test_huge_activations_of_first_tokens(llama, tmp_path, size):
    """Values beyond float16 in the residual stream: states that are kept in 16 bits must hold them."""
    shutil.copytree(llama, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.embed_tokens.weight"][2, 0] = size  # of [CLS], which begins every text
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    data = write_texts(tmp_path / "data", [words(40, seed=place) for place in range(600)])
    # In 16 MB some states are kept, in half precision, as of models of real sizes; in 448 all, in float32.
    few, many = (
        run(
            spec_of(tmp_path / "model", data, samples=256, max_length=64, memory_mb=room, precision="float32"),
            tmp_path / f"bundle-{room}",
        )
        for room in (16, 448)
    )
    assert few.quality.pruned == pytest.approx(many.quality.pruned, rel=0.002)
    widths = [json.loads((tmp_path / f"bundle-{room}" / "config.json").read_text()) for room in (16, 448)]
    assert widths[0] == widths[1]


@pytest.mark.parametrize(("largest", "dtype"), [(60_000, torch.float16), (70_000, torch.bfloat16)])
@pytest.mark.parametrize("room", [10**6, 0], ids=["block", "file"])
def test_a_state_beyond_float16_is_kept_in_bfloat16(largest, dtype, room):
    values = torch.randn(2, 3, 8)
    values[0, 0, 0] = largest
    with ActivationCache(10**6, room, torch.float16, torch.device("cpu")) as cache:
        entry = cache.keep(values)
        assert entry.read().dtype == dtype
        assert torch.equal(entry.read(), values.to(dtype))
        entry.write(values.clamp(max=10))
        assert entry.read().dtype == torch.float16, "the next state is small again"


def test_a_plan_in_sixteen_bits_is_what_these_runs_have():
    plan: StatePlan = plan_states([1024] * 24, 64, 4, 16 * 2**20)
    assert plan.dtype == torch.float16
