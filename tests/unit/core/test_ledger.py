"""The ledger of capabilities: its rules by hand, its parts on tiny models, and jobs from end to end."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from pruning_core.data.rows import Rows
from pruning_core.measure.certainty import Comparison
from pruning_core.measure.ledger import made
from pruning_core.measure.ledger.blocks import CHOICES, CONTEXT, ClozePart, blocks_of
from pruning_core.measure.ledger.ledger import Ledger
from pruning_core.measure.ledger.pieces import PiecesPart, halves_of
from pruning_core.measure.ledger.rows import Subject, verdict_on_task
from pruning_core.measure.ledger.spelling import spelled_out
from pruning_core.measure.ledger.writing import LONGEST, WritingPart, Written
from pruning_core.models.load import load_task_model
from pruning_core.report.ledger import LedgerRow, ledger_line
from pruning_core.report.ledger_words import ledger_words, worse_by_limits
from pruning_core.report.quality import QualityReport
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.row_forms import exponential_ratio, means, ratios, shares
from tests import tiny

CPU = torch.device("cpu")


def write_decoder(folder: Path) -> Path:
    """Write a tiny GPT-2 that reads bytes, so that it has a token for whatever a text holds."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({sign: index for index, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", model_max_length=64
    ).save_pretrained(folder)
    config = transformers.GPT2Config(
        vocab_size=257, n_positions=64, n_embd=32, n_layer=2, n_head=4, n_inner=64, bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3 if "wte" in name else 0.2)
    model.eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def german(tmp_path_factory) -> Path:
    """Make a text of German words, since none may lie in the repository."""
    rng = random.Random(0)
    words = ["der", "die", "das", "Haus", "Straße", "grün", "läuft", "schnell", "und", "über", "Brücke", "Mädchen", "müde"]
    path = tmp_path_factory.mktemp("texts") / "german.txt"
    path.write_text(" ".join(rng.choices(words, k=2000)), encoding="utf-8")
    return path


def decoder_spec(model: Path, data: Path, ledger: object, **changes) -> PruneSpec:
    task = {"type": "text-generation", "columns": {"text": ["text"]}, "dataset": str(data), "metric": "perplexity"}
    evaluation = {"max_length": 32, "ledger": ledger}
    return tiny.tiny_spec(model, data, task=task, evaluation=evaluation, **changes).but()


def of_shares(dense, pruned, **subject) -> LedgerRow:
    given = Subject(**({"name": "x", "judged_by": "retrieval", "unit": "piece"} | subject))
    return given.row(shares(np.array(dense, dtype=bool), np.array(pruned, dtype=bool)), 0)


# --- rules --------------------------------------------------------------------------------------------------------------


def test_the_verdict_is_by_the_ends_of_the_interval():
    right = [True] * 400
    assert of_shares(right, right).verdict == "kept", "surely no more than 5 points worse"
    assert of_shares(right, [True] * 300 + [False] * 100).verdict == "lost", "surely more than 5 points worse"
    unsure = of_shares([True] * 40, [True] * 38 + [False] * 2)
    assert unsure.verdict == "unclear", "5 points worse, with 40 rows"
    assert unsure.low < -0.05 < unsure.high
    assert of_shares([False] * 200 + [True] * 200, [True] * 400).verdict == "kept", "better is not worse"


def test_perplexity_may_rise_by_a_fifth():
    rng = np.random.default_rng(0)
    counts = np.full(200, 63)
    losses = rng.normal(3.0, 0.1, 200) * 63

    def judged(factor: float) -> LedgerRow:
        more = losses + np.log(factor) * 63 + rng.normal(0, 0.05, 200)
        form = ratios(losses, counts, more, counts, exponential_ratio)
        return Subject("x", "perplexity", "block").row(form, 0)

    kept, lost, same = judged(1.1), judged(1.3), judged(1.2)
    assert (kept.verdict, lost.verdict, same.verdict) == ("kept", "lost", "unclear")
    assert lost.pruned / lost.dense == pytest.approx(1.3, rel=0.01)
    value, low, high = worse_by_limits(lost)
    assert low <= value <= high
    assert value == pytest.approx(1.5, rel=0.05), "a rise by 30 % is one and a half of what is allowed"


def test_less_repetition_is_better():
    dense, pruned = np.full(40, 0.1), np.full(40, 0.9)
    row = Subject("x", "repetition", "continuation").row(means(dense, pruned), 0)
    assert (row.verdict, row.lower_is_better) == ("lost", True)
    assert Subject("x", "repetition", "continuation").row(means(pruned, dense), 0).verdict == "kept"


def test_identical_models_keep_everything_and_have_no_width():
    same = ratios(np.full(30, 63), np.full(30, 63), np.full(30, 63), np.full(30, 63))
    row = Subject("x", "retrieval", "piece").row(same, 0)
    assert (row.dense, row.pruned, row.low, row.high, row.verdict) == (1, 1, 0, 0, "kept")
    beside = Subject("x", "agreement", "block").row(same, 0)
    assert (beside.low, beside.verdict) == (0, None), "what agrees is shown, and no verdict"


def test_a_dense_model_that_guesses_has_nothing_to_lose():
    quarter = ([True] + [False] * 3) * 20
    row = of_shares(quarter, [False] * 80, judged_by="cloze", chance=0.25)
    assert row.verdict == "unclear"
    assert "guessing (0.25)" in row.reason
    assert row.low is not None, "the figures stand there all the same"


@pytest.mark.parametrize("rows", [1, 9])
def test_too_few_rows_have_figures_and_a_reason(rows):
    row = of_shares([True] * rows, [False] * rows)
    assert (row.dense, row.pruned, row.low, row.verdict) == (1, 0, None, "unclear")
    assert "too few" in row.reason


def test_the_line_says_the_worst_of_each_subject():
    def row(subject, judged_by, verdict):
        return LedgerRow(subject=subject, judged_by=judged_by, rows=1, unit="row", verdict=verdict, limit=0.1)

    rows = [
        row("arithmetic", "perplexity", "kept"),
        row("arithmetic", "agreement", None),
        row("German", "perplexity", "lost"),
        row("German", "cloze", "kept"),
        row("source code", "perplexity", "unclear"),
    ]
    line = ledger_line("kept", rows)
    assert line == "kept its task and arithmetic; lost German; can't tell about source code"
    assert ledger_line("lost", []) == "lost its task"


def test_the_task_has_a_verdict_without_an_interval():
    quality = QualityReport(metric="perplexity", dense=2, pruned=3, samples=1, lower_is_better=True)
    assert verdict_on_task(Comparison(quality, "1 row is too few")) == "unclear"


# --- made texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_made_texts_are_enough_and_the_same_each_time():
    assert made.docstrings() == made.docstrings.__wrapped__()
    assert len(made.docstrings()) > 200
    assert len(made.source_code()) > 200
    assert not any('"""' in code for code in made.source_code()[:20]), "docstrings are a subject of their own"
    assert made.arithmetic(3) == made.arithmetic(3) != made.arithmetic(4)


def test_made_arithmetic_is_true():
    (text,) = made.arithmetic(0)
    found = re.findall(r"(\d+) plus (\d+) is (\d+)\.", text)
    assert len(found) > 50
    assert all(int(a) + int(b) == int(c) for a, b, c in found)
    times = re.findall(r"(\d+) times (\d+) equals (\d+)\.", text)
    assert times
    assert all(int(a) * int(b) == int(c) for a, b, c in times)


# --- decoders -----------------------------------------------------------------------------------------------------------


def test_blocks_are_whole_and_spread_over_the_text(decoder):
    model = load_task_model(decoder, "text-generation", CPU)
    text = "".join(chr(97 + i % 26) for i in range(64 * 30 + 10))
    blocks = blocks_of(model, [text], 10)
    assert len(blocks) == 10
    assert {len(block) for block in blocks} == {64}
    everything = blocks_of(model, [text], 1000)
    assert len(everything) == 30
    assert (blocks[0], blocks[-1]) == (everything[0], everything[-1])


def test_cloze_items_have_the_true_continuation_first(decoder, german):
    model = load_task_model(decoder, "text-generation", CPU)
    spec = decoder_spec(decoder, german.parent, True)
    blocks = blocks_of(model, [german.read_text()], 12)
    part = ClozePart.of(model, spec.task, "german", blocks, seed=0)
    assert part.tokens.samples == 12 * CHOICES
    ids = {}
    for batch in part.tokens.batches:
        ids |= zip(batch.rows.tolist(), batch.inputs["input_ids"].tolist(), strict=True)
    for item, block in enumerate(blocks):
        first, *others = (ids[item * CHOICES + choice] for choice in range(CHOICES))
        assert first == list(block[: len(first)])
        assert all(own[:CONTEXT] == first[:CONTEXT] and own != first for own in others)
    assert ClozePart.of(model, spec.task, "german", blocks[:3], seed=0) is None, "three blocks have no four continuations"
    found = torch.tensor([[1.0, 2, 3, 4], [2.0, 1, 3, 4], [1.0, 1, 3, 4]] * 10)
    (row,) = part.rows(found, found, 0)
    assert row.dense == pytest.approx(1 / 3, abs=1e-6), "a tie is no right answer"


def test_endings_are_judged_where_the_dense_model_ends_and_repetition_everywhere():
    def written(ended, tokens=tuple(range(20))):
        return Written(tokens, ended)

    dense = [written(True)] * 12 + [written(False)] * 8
    pruned = [written(True)] * 2 + [written(False, (1, 2) * 10)] * 18
    endings, repetition = WritingPart(()).rows(dense, pruned, 0)
    assert (endings.rows, endings.dense, endings.verdict) == (12, 1, "lost")
    assert endings.pruned == pytest.approx(2 / 12, abs=1e-6)
    assert (repetition.rows, repetition.dense) == (20, 0)
    assert repetition.pruned == pytest.approx(18 / 20 * 15 / 17, abs=1e-6), "17 four-grams, of which two differ"
    few, short = WritingPart(()).rows([written(False, (1,))] * 20, [written(False, (1,))] * 20, 0)
    assert "ended 0 of 20" in few.reason
    assert "0 of 20 continuations have" in short.reason


def test_a_model_writes_until_it_ends(decoder):
    model = load_task_model(decoder, "text-generation", CPU)
    part = WritingPart.of(model, made.docstrings())
    found = part.observe(model, lambda _step: None)
    assert len(found) == 24
    assert all(len(own.tokens) == LONGEST or own.ended for own in found)
    assert all(0 not in own.tokens for own in found), "what ends a text is no part of it"
    assert part.observe(model, lambda _step: None) == found, "greedy, and the same each time"


def test_a_pruned_model_of_nan_has_lost_all_and_the_job_goes_on(decoder, tmp_path):
    model = load_task_model(decoder, "text-generation", CPU)
    spec = decoder_spec(decoder, tmp_path, {"items": 12})
    ledger = Ledger.asked_for(spec, model, Rows((("some text " * 400,),), None))
    broken = load_task_model(decoder, "text-generation", CPU).model
    with torch.no_grad():
        broken.transformer.h[1].mlp.c_fc.weight.fill_(float("nan"))
    quality = QualityReport(metric="perplexity", dense=2, pruned=3, samples=1, lower_is_better=True)
    steps = []
    first = ledger.steps
    report = ledger.judge(model.with_model(broken), Comparison(quality, "none"), steps.append)
    judged = {row.subject: row for row in report.rows if row.judged_by == "perplexity"}
    assert judged["source code"].verdict == "lost"
    assert "not finite" in judged["source code"].reason
    assert steps == sorted(steps)
    assert steps[-1] <= first
    same = ledger.judge(model, Comparison(quality, "none"), steps.append)
    assert {row.verdict for row in same.rows if row.judged_by == "perplexity"} == {"kept"}, "two identical models"


# --- languages ----------------------------------------------------------------------------------------------------------


def test_a_language_that_is_spelled_or_unknown_is_warned_of(decoder, tmp_path, german):
    bytes_alone = transformers.AutoTokenizer.from_pretrained(decoder)
    assert "tokens of each letter" in spelled_out(bytes_alone, [german.read_text()])
    assert "tokens of each letter" in spelled_out(bytes_alone, ["日本語の文章です。" * 20])
    tiny.write_tokenizer(tmp_path)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert "unknown to the tokenizer" in spelled_out(words, [german.read_text()])
    assert spelled_out(words, [" ".join(tiny.WORDS)]) is None


# --- embedders ----------------------------------------------------------------------------------------------------------


def test_texts_are_cut_into_halves():
    text = " ".join(f"word{i}" for i in range(100))
    first, second = halves_of([text], 10)
    assert first == (" ".join(f"word{i}" for i in range(24)), " ".join(f"word{i}" for i in range(24, 48)))
    assert len(halves_of([text], 1)) == 1
    assert len(second[0].split()) == 24
    assert halves_of(["too few words"], 10) == []
    assert len(halves_of(["漢字" * 160], 10)) == 1, "texts without spaces are cut by letters, and alike pieces count once"


def test_pieces_by_hand():
    rng = torch.Generator().manual_seed(0)
    first = torch.nn.functional.normalize(torch.randn(60, 16, generator=rng, dtype=torch.float64), dim=-1)
    dense = torch.stack([first, first], dim=1)
    part = PiecesPart("docstrings", None, None)
    kept = part.rows(dense, dense, 0)
    assert [row.verdict for row in kept if row.judged_by != "neighbours"] == ["kept"] * 2
    assert [row.pruned for row in kept] == [1, 1, 1]
    noise = torch.nn.functional.normalize(torch.randn(60, 2, 16, generator=rng, dtype=torch.float64), dim=-1)
    lost = {row.judged_by: row for row in part.rows(dense, noise, 0)}
    assert {name: row.verdict for name, row in lost.items()} == {"retrieval": "lost", "similarity": "lost", "neighbours": None}
    assert lost["retrieval"].pruned < 0.2
    assert abs(lost["similarity"].pruned) < 0.4


# --- jobs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("proven_by_a_fork")
@pytest.mark.long
def test_a_job_of_a_decoder_has_a_ledger_each_and_keeps_texts_out_of_it(decoder, german, tmp_path):
    data = tiny.write_jsonl(tmp_path / "data")
    targets = [{"metric": "macs", "keep": 0.8}, {"metric": "macs", "keep": 0.4}]
    spec = decoder_spec(decoder, data, {"items": 16, "texts": {"German": str(german)}}, target=None, targets=targets)
    report = run(spec, tmp_path / "out", device="cpu")
    assert [point.ledger is not None for point in report.frontier] == [True, True]
    large, small = (point.ledger for point in report.frontier)
    assert report.ledger == large != small
    subjects = {row.subject for row in large.rows}
    assert {"docstrings", "source code", "arithmetic", "German", "the held-out text", "writing to an end"} <= subjects
    assert all(row.low is not None or row.reason for row in large.rows)
    dense = [[row.dense for row in own.rows if row.judged_by == "perplexity"] for own in (large, small)]
    assert dense[0] == dense[1], "the dense side is the same"
    assert any("ledger, German: the tokenizer makes" in said for said in report.warnings)
    page, card = ((tmp_path / "out" / name).read_text() for name in ("report.html", "README.md"))
    sentence = f"{large.line[0].upper()}{large.line[1:]}."
    for text in (page, card):
        assert "What it can still do" in text
        assert "German" in text
    assert sentence.replace("'", "&#39;") in page
    for name in ("report.json", "report.html", "README.md"):
        assert "Mädchen" not in (tmp_path / "out" / name).read_text(), "the users' texts stay theirs"
    assert all(words.verdict for words in ledger_words(large))


@pytest.mark.usefixtures("proven_by_a_fork")
@pytest.mark.parametrize("task", ["feature-extraction", "sentence-similarity"])
@pytest.mark.long
def test_a_job_of_an_embedder_has_a_ledger(task, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="embedding")
    data = tmp_path / "data"
    columns = {"text": ["text"]}
    metric = "cosine"
    if task == "feature-extraction":
        tiny.write_jsonl(data)
    else:
        data.mkdir()
        columns, metric = {"text": ["a", "b"], "label": "score"}, "spearman"
        rng = random.Random(0)
        for split in ("train", "validation"):
            rows = [
                {
                    "a": " ".join(rng.choices(tiny.WORDS, k=8)),
                    "b": " ".join(rng.choices(tiny.WORDS, k=8)),
                    "score": rng.random(),
                }
                for _ in range(60)
            ]
            (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    fields = {"type": task, "columns": columns, "dataset": str(data), "metric": metric}
    pieces = tmp_path / "words.txt"
    rng = random.Random(1)
    pieces.write_text(" ".join(rng.choices(tiny.WORDS, k=3000)))
    few = tmp_path / "few.txt"
    few.write_text(" ".join(rng.choices(tiny.WORDS, k=48 * 6)))
    texts = {"words": str(pieces), "few": str(few)}
    evaluation = {"max_length": 32, "ledger": {"items": 30, "texts": texts}}
    spec = tiny.tiny_spec(model, data, task=fields, evaluation=evaluation)
    report = run(spec, tmp_path / "out", device="cpu")
    rows = {(row.subject, row.judged_by): row for row in report.ledger.rows}
    assert rows["words", "retrieval"].rows == 30
    assert rows["words", "similarity"].dense == 1
    assert 0 < rows["words", "neighbours"].pruned <= 1
    assert ("docstrings", "retrieval") in rows
    assert rows["few", "retrieval"].low is None
    assert any("ledger, few: 6 pieces of 48 words" in said for said in report.warnings)
    assert not any("ledger, words: " in said and "pieces" in said for said in report.warnings)
    assert "its task" in report.ledger.line
