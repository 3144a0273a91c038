"""Acceptance fails closed: every comparison with a fresh process refuses what is missing, misshapen or no finite number."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pruning_core.artifacts import as_users, fresh
from pruning_core.artifacts.acceptance import Expectation, Prover
from pruning_core.artifacts.comparison import FACTS as SAID
from pruning_core.artifacts.comparison import compare_facts
from pruning_core.artifacts.compressed import COMPRESSED_PATH
from pruning_core.artifacts.messages import Found, FoundCompressed, FoundLatency, FoundOnnx
from pruning_core.artifacts.onnx import ONNX_PATH
from pruning_core.artifacts.probes import ProbeInput
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import LatencySpec

NAN, INF = math.nan, math.inf
ANSWERS = (torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 1.0], [2.0, 0.25]]))
REPEATS = 3
FACTS: dict[str, object] = {}  # of the tiny model; its fixture fills them in


@pytest.fixture(scope="module")
def prover(tiny_bert):
    dense = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    probes = (ProbeInput((("good",),), 8), ProbeInput((("good",), ("bad",)), 8))
    found = Prover(dense, probes, LatencySpec(batch=2, length=16, repeats=REPEATS), trust_remote_code=False, seed=0)
    FACTS.update(as_users.facts(dense.model, dense.processor, found.fact_texts))
    return found


@pytest.fixture
def claim(tmp_path):
    """A checkpoint of which everything was promised."""
    for name, size in ((ONNX_PATH, 9), (f"{COMPRESSED_PATH}/model.safetensors", 40)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x" * size)
    return Expectation(tmp_path, ANSWERS, 10, 100, onnx=True, measure_again=True, compressed={"bits": 2, "dense": 1})


def _found(**changes):
    outputs = [own.tolist() for own in ANSWERS]
    times = [1.0, 2.0, 3.0]
    whole = Found(
        outputs=outputs,
        parameters=10,
        stored=10,
        bytes=100,
        libraries={"torch": "2"},
        facts=FACTS,
        onnx=FoundOnnx(outputs=outputs, milliseconds=times, version="1"),
        compressed=FoundCompressed(differing=[], compared=5, stored=4, bytes=40),
        latency=FoundLatency(dense=times, pruned=times, threads=1),
    )
    return whole.model_copy(update=changes)


def test_what_is_the_same_holds(prover, claim):
    proof = prover.judge(claim, _found())
    assert proof.problem is None
    assert (proof.acceptance.max_difference, proof.acceptance.samples) == (0.0, 3)
    assert (proof.onnx.status, proof.onnx.latency_ms, proof.compressed.status) == ("ok", 2.0, "ok")
    assert proof.acceptance.latency_ms.speedup == 1
    assert set(proof.acceptance.checks) == set(FACTS) >= {"labels", "rope", "tokens", "special tokens", "chat template"}


@pytest.mark.parametrize("name", ["labels", "rope", "tokens", "special tokens", "tokenizer settings", "chat template"])
def test_what_decides_results_beside_weights_fails_closed(name, prover, claim):
    proof = prover.judge(claim, _found(facts=FACTS | {name: "other"}))
    assert proof.problem == f"in a fresh process its {SAID[name]}"
    assert name not in proof.acceptance.checks
    lacking = prover.judge(claim, _found(facts={key: value for key, value in FACTS.items() if key != name}))
    assert lacking.problem == f"a fresh process did not look at its {name}"


def test_only_the_rounding_of_frequencies_is_no_difference():
    ours = {"rope": [["a.inv_freq", [1.0, 0.1]]]}
    assert compare_facts(ours, {"rope": [["a.inv_freq", [1.0, 0.1000000001]]]}) == (("rope",), None)
    for other in ([["a.inv_freq", [1.0, 0.11]]], [["a.inv_freq", [1.0]]], [["a.inv_freq", [1.0, None]]], []):
        assert compare_facts(ours, {"rope": other})[1] is not None


SECOND = ANSWERS[1].tolist()
WRONG_OUTPUTS = {
    "nan": ([[[1.0, NAN]], SECOND], "not finite"),
    "infinity": ([[[1.0, -INF]], SECOND], "not finite"),
    "other": ([[[1.0, -2.1]], SECOND], "outputs that differ by 5.0e-02"),
    "a batch less": ([[[1.0, -2.0]]], "outputs of 1 of 2 batches"),
    "nothing": ([], "outputs of 0 of 2 batches"),
    "a row less": ([[[1.0, -2.0]], SECOND[:1]], "outputs of shape (1, 2) where the worker got (2, 2)"),
    "a value less": ([[[1.0]], SECOND], "outputs of shape (1, 1) where the worker got (1, 2)"),
    "no row": ([[], SECOND], "outputs of shape unknown"),
    "ragged": ([[[1.0, -2.0]], [[0.5, 1.0], [2.0]]], "outputs of shape unknown"),
}


@pytest.mark.parametrize("wrong", WRONG_OUTPUTS)
def test_outputs_of_the_checkpoint_fail_closed(wrong, prover, claim):
    outputs, says = WRONG_OUTPUTS[wrong]
    proof = prover.judge(claim, _found(outputs=outputs))
    assert proof.problem.startswith("a fresh process gets outputs")
    assert says in proof.problem
    assert proof.acceptance is None or math.isfinite(proof.acceptance.max_difference)


@pytest.mark.parametrize("wrong", WRONG_OUTPUTS)
def test_outputs_of_the_graph_fail_closed(wrong, prover, claim):
    outputs, says = WRONG_OUTPUTS[wrong]
    proof = prover.judge(claim, _found(onnx=FoundOnnx(outputs=outputs, milliseconds=[1.0] * REPEATS, version="1")))
    assert proof.problem is None, "it says nothing of the checkpoint"
    assert proof.onnx.status == "failed"
    assert says in proof.onnx.reason


@pytest.mark.parametrize("value", [NAN, INF])
def test_outputs_of_the_worker_that_are_not_finite_fail_closed(value, prover, claim):
    spoiled = ANSWERS[0].clone()
    spoiled[0, 1] = value
    proof = prover.judge(replace(claim, answers=(spoiled, ANSWERS[1])), _found())
    assert "the worker's are not finite" in proof.problem
    assert proof.acceptance is None
    assert proof.onnx.status == "failed"


@pytest.mark.parametrize("answers", [(), ANSWERS[:1]])
def test_outputs_that_the_worker_has_not_made_fail_closed(answers, prover, claim):
    outputs = [own.tolist() for own in answers]
    assert "of 2 batches" in prover.judge(replace(claim, answers=answers), _found(outputs=outputs)).problem


WRONG_TIMES = {
    "nan": ([1.0, NAN, 3.0], "not finite"),
    "infinity": ([1.0, INF, 3.0], "not finite"),
    "zero": ([0.0] * 3, "not finite and above zero"),
    "negative": ([1.0, -1.0, 3.0], "not finite and above zero"),
    "fewer": ([1.0, 2.0], "2 of 3 times"),
    "none": ([], "0 of 3 times"),
}


@pytest.mark.parametrize("of", ["dense", "pruned"])
@pytest.mark.parametrize("wrong", WRONG_TIMES)
def test_latency_fails_closed(wrong, of, prover, claim):
    times, says = WRONG_TIMES[wrong]
    latency = FoundLatency(**({"dense": [1.0] * 3, "pruned": [1.0] * 3, "threads": 1} | {of: times}))
    proof = prover.judge(claim, _found(latency=latency))
    assert says in proof.problem
    assert "latency" in proof.problem
    assert proof.acceptance is None


def test_a_latency_that_was_promised_and_not_measured_fails_closed(prover, claim):
    assert prover.judge(claim, _found(latency=None)).problem == "its latency was not measured again in a fresh process"
    assert prover.judge(replace(claim, measure_again=False), _found(latency=None)).problem is None


@pytest.mark.parametrize("wrong", WRONG_TIMES)
def test_latency_of_the_graph_fails_closed(wrong, prover, claim):
    times, says = WRONG_TIMES[wrong]
    own = FoundOnnx(outputs=[own.tolist() for own in ANSWERS], milliseconds=times, version="1")
    proof = prover.judge(claim, _found(onnx=own))
    assert proof.onnx.status == "failed"
    assert says in proof.onnx.reason


@pytest.mark.parametrize("changes", [{"stored": 11}, {"bytes": 99}, {"parameters": 11}, {"parameters": 0}, {"stored": 0}])
def test_counts_fail_closed(changes, prover, claim):
    assert "a fresh process counts" in prover.judge(claim, _found(**changes)).problem


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"differing": ["a", "b"]}, "2 tensors differ, a for one"),
        ({"compared": 0}, "compared 0 tensors"),
        ({"compared": 2}, "compared 2 tensors of a checkpoint with 3 prunable matrices"),
        ({"bytes": 41}, "the worker counted 40 bytes"),
        ({"stored": 0}, "counts 0 values"),
    ],
)
def test_the_compressed_form_fails_closed(changes, says, prover, claim):
    whole = {"differing": [], "compared": 5, "stored": 4, "bytes": 40}
    proof = prover.judge(claim, _found(compressed=FoundCompressed(**(whole | changes))))
    assert proof.problem is None, "it says nothing of the checkpoint"
    assert proof.compressed.status == "failed"
    assert says in proof.compressed.reason


def test_forms_that_were_promised_and_not_looked_at_fail_closed(prover, claim):
    proof = prover.judge(claim, _found(onnx=None, compressed=None))
    assert (proof.onnx.status, proof.compressed.status) == ("failed", "failed")


@pytest.mark.parametrize(
    "other",
    [
        torch.tensor([1.0, -0.0]),
        torch.tensor([1.0, NAN]),
        torch.tensor([1.0, 0.0, 0.0]),
        torch.tensor([1.0, 0.0], dtype=torch.float64),
        torch.tensor([1.0, 1e-45]),
    ],
)
def test_bits_are_compared_not_values(other):
    assert not fresh.same_bits(other, torch.tensor([1.0, 0.0]))
    assert fresh.same_bits(other, other) != bool(other.isnan().any())
    assert fresh.same_bits(torch.arange(3), torch.arange(3))
