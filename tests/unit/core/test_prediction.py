"""What is told of a job before it runs grows with what it does."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import pytest

from pruning_core.arch.structure import groups_of
from pruning_core.artifacts.engines import inputs
from pruning_core.checks import seconds as seconds_module
from pruning_core.checks.prediction import predict
from pruning_core.checks.seconds import Model, Seconds, seconds_of
from pruning_core.engines.registry import ENGINES
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.measure.ledger import blocks, writing
from pruning_core.spec.evaluation import EvaluationSpec
from pruning_core.spec.prune import PruneSpec
from tests import tiny
from tests.unit.core.test_ledger import decoder_spec, write_decoder


def seconds(model, data, **method):
    found = predict(tiny.tiny_spec(model, data, target=None, method={"name": "admm-pattern"} | method))
    assert found is not None
    return found.seconds


def test_training_and_iterations_are_in_the_time(tmp_path, tiny_sst2):
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
    model = tiny.write_model(tmp_path / "model", "bert", **wide)
    once = seconds(model, tiny_sst2)
    assert seconds(model, tiny_sst2, iterations=1000) > once
    trained = seconds(model, tiny_sst2, tier="trained")
    assert trained > 1.5 * once
    longer = seconds(model, tiny_sst2, tier="trained", training={"epochs": 20})
    fewer = seconds(model, tiny_sst2, tier="trained", training={"epochs": 20, "max_train_rows": 100})
    assert fewer < trained < longer


def test_healing_is_in_the_time_and_the_memory_and_a_short_budget_is_told_of(tmp_path, tiny_sst2):
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
    model = tiny.write_model(tmp_path / "model", "bert", **wide)

    def told(heal, **more):
        found = predict(tiny.tiny_spec(model, tiny_sst2, recovery={"heal": heal}, **more))
        assert found is not None
        return found

    plain, minutes = told("none"), told({"kind": "distil", "minutes": 3})
    assert minutes.seconds == pytest.approx(plain.seconds + 180, abs=1)
    assert minutes.memory_bytes > plain.memory_bytes
    two = {"target": None, "targets": [{"metric": "macs", "keep": keep} for keep in (0.5, 0.3)]}
    assert told({"kind": "distil", "minutes": 3}, **two).seconds > told("none", **two).seconds + 359
    assert told({"kind": "distil", "steps": 10**6}).seconds > told({"kind": "distil", "steps": 10}).seconds > plain.seconds
    said = told({"kind": "distil", "minutes": 1e-4}).warnings
    assert any("minutes have room for few of them" in one for one in said), said
    assert not any("of healing" in one for one in minutes.warnings)


def test_paged_weights_are_not_counted_in_the_memory(tmp_path, tiny_sst2):
    model = tiny.write_model(tmp_path / "model", "bert", hidden_size=64, intermediate_size=512, num_hidden_layers=8)
    whole, paged = (predict(tiny.tiny_spec(model, tiny_sst2, memory={"weights": weights})) for weights in ("auto", "paged"))
    assert whole is not None
    assert paged is not None
    assert whole.memory_bytes - paged.memory_bytes > 3 * 4 * 6 * (4 * 64 * 64 + 2 * 64 * 512)


# --- time ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("decoder"))


def parts(spec: PruneSpec) -> Seconds:
    facts = read_checkpoint(Path(spec.model))
    found = seconds_of(spec, groups_of(facts), facts)
    told = predict(spec)
    assert told is not None
    assert told.seconds == found.total == pytest.approx(sum(astuple(found)), abs=0.05)
    return found


def cost_of(spec: PruneSpec) -> Model:
    facts = read_checkpoint(Path(spec.model))
    return Model.of(spec, groups_of(facts), facts)


def test_what_is_counted_is_what_is_done():
    """The estimate is of a room that can't import the rooms which do the work."""
    assert (seconds_module.CLOZE_CHOICES, seconds_module.CLOZE_TOKENS) == (blocks.CHOICES, blocks.CONTEXT + blocks.CONTINUATION)
    assert seconds_module.WRITTEN_TOKENS == writing.LONGEST
    assert (seconds_module.SCORED_TEXTS, seconds_module.SCORED_TOKENS) == (inputs.TEXTS, inputs.LONGEST)
    assert (seconds_module.CONTINUED, seconds_module.CONTINUED_TOKENS) == (inputs.PROMPTS, inputs.NEW_TOKENS)
    timed = (seconds_module.TIMED_PROMPT, seconds_module.TIMED_TOKENS, seconds_module.TURNS)
    assert timed == (inputs.TIMED_PROMPT, inputs.TIMED_TOKENS, inputs.TURNS)


def test_further_sets_are_in_the_time(decoder: Path, tmp_path: Path):
    data = tiny.write_jsonl(tmp_path / "data")
    plain = decoder_spec(decoder, data, None)
    also = ({"name": "a", "split": "train"}, {"name": "b", "split": "train", "max_samples": 50})
    spec = plain.but(evaluation=EvaluationSpec(max_length=64, also=also))
    forward = cost_of(plain).forward(64 / 4)
    assert parts(plain).further == 0
    assert parts(spec).further == pytest.approx((1 + 1) * (1000 + 50) * forward / 2e11)
    first = spec.all_targets[0]
    three = spec.but(target=None, targets=tuple(first.but(keep=keep) for keep in (0.8, 0.6, 0.4)))
    assert parts(three).further == pytest.approx((1 + 3) * (1000 + 50) * forward / 2e11)


def test_the_scores_of_the_vocabulary_are_in_the_time(decoder: Path, tmp_path: Path):
    model = cost_of(decoder_spec(decoder, tiny.write_jsonl(tmp_path / "data"), None))
    assert model.vocabulary == 257 * 32
    units = sum(group.macs_per_unit(10) * group.size for group in model.groups)
    assert model.forward(10) == 2 * (units + 10 * 257 * 32)


@pytest.mark.parametrize("entries", [10**400, -5, None, "many"])
def test_a_vocabulary_that_a_strangers_configuration_claims_breaks_no_estimate(decoder: Path, tmp_path: Path, entries: object):
    spec = decoder_spec(decoder, tiny.write_jsonl(tmp_path / "data"), True)
    facts = read_checkpoint(decoder)
    groups = groups_of(facts)
    claimed = replace(facts, config={**facts.config, "vocab_size": entries})
    assert 0 <= Model.of(spec, groups, claimed).vocabulary <= facts.parameters
    assert 0 < seconds_of(spec, groups, claimed).total < 100


def test_the_ledger_is_in_the_time(decoder: Path, tiny_bert: Path, tmp_path: Path):
    data = tiny.write_jsonl(tmp_path / "data")

    def of(ledger: object) -> float:
        return parts(decoder_spec(decoder, data, ledger)).ledger

    model = cost_of(decoder_spec(decoder, data, None))
    assert of(None) == 0
    work = 64 * 4 * model.forward(64) + 64 * 4 * model.forward(40)
    assert of(True) == pytest.approx(3 + 2 * (work / 2e11 + 4 * 48 * model.step_s))
    more = 512 * 6 * model.forward(64) + 512 * 3 * 4 * model.forward(40)
    texts = {"German": "/german.txt", "Greek": "/greek.txt"}
    assert of({"items": 512, "texts": texts}) == pytest.approx(3 + 2 * (more / 2e11 + 4 * 48 * model.step_s))
    assert of({"lm_eval": "/tasks"}) > of(True) + 14, "lm-eval is imported"
    task = {"type": "feature-extraction", "columns": {"text": ["text"]}, "dataset": str(data), "metric": "cosine"}
    spec = tiny.tiny_spec(tiny_bert, data, task=task, evaluation={"ledger": {"items": 100}})
    assert parts(spec).ledger == pytest.approx(3 + 2 * (200 * 3 * cost_of(spec).forward(32)) / 2e11)


def test_formats_and_engines_are_in_the_time(decoder: Path, tiny_bert: Path, tiny_sst2: Path, tmp_path: Path):
    data = tiny.write_jsonl(tmp_path / "data")

    def of(**artifacts: object) -> Seconds:
        return parts(decoder_spec(decoder, data, None, artifacts=artifacts))

    assert (of().engines, of().formats) == (0, 0)
    once = of(engines=["transformers"]).engines
    assert 12 < once < 13
    both = of(engines=["transformers", "onnxruntime"], formats=["safetensors", "onnx"])
    assert 24 < both.engines < 26
    assert of(engines=["transformers", "onnxruntime"]).engines == once, "without its file an engine does not run"
    assert of(engines=["transformers", "vllm"]).engines == once, "nor where it can't hold the bundle"
    assert 8 < both.formats < 8.1
    assert of(formats=["safetensors", "onnx"], onnx=["stored", "int8"]).formats == pytest.approx(2 * both.formats)
    changes = {"engines": ["onnxruntime"], "formats": ["safetensors", "onnx"]}
    classes = parts(tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts=changes))
    assert 12 < classes.engines < 13
    two = tiny.tiny_spec(
        tiny_bert,
        tiny_sst2,
        artifacts=changes,
        target=None,
        targets=[{"metric": "macs", "keep": 0.5}, {"metric": "macs", "keep": 0.3}],
    )
    assert parts(two).engines == pytest.approx(2 * classes.engines)
    assert ENGINES["vllm"].start_s > ENGINES["transformers"].start_s
