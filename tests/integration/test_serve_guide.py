"""The commands of docs/guides/serve.md, as they stand there: each server is started, asked once, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime
import pytest
import torch
import transformers
from tokenizers import decoders

from pruning_core.engines.registry import Found, find
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from tests import gguf_models
from tests.engines import write_texts
from tests.guides import block
from tests.servers import free_port
from tests.tiny import tiny_spec

ROOT = Path(__file__).resolve().parents[2]
_START_S = 240
engine = pytest.mark.engine


def _interpreter(name: str) -> Path:
    found = find(name, tries=False)
    if not isinstance(found, Found):
        pytest.skip(f"{found.why}; {found.how}")
    return found.interpreter


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle of a small decoder in layout `serve`, with a GGUF file. No engine has proven it."""
    folder = tmp_path_factory.mktemp("serve")
    sizes = {"hidden_size": 64, "intermediate_size": 1024, "num_hidden_layers": 3, "vocab_size": 640, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
    tokenizer = gguf_models.tokenizers()["smollm"]
    config = transformers.LlamaConfig(**sizes, **heads, bos_token_id=560, eos_token_id=561, tie_word_embeddings=True)
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.15)
        words = {index for name, index in tokenizer.get_vocab().items() if re.fullmatch(r"Ġ?[a-z]+", name)}
        others = [index for index in range(640) if index not in words]
        model.get_input_embeddings().weight[others] = 0  # so that it says words, and no half of a letter
    model.save_pretrained(folder / "dense")
    tokenizer.save_pretrained(folder / "dense")
    document = {
        "model": str(folder / "dense"),
        "task": {
            "type": "text-generation",
            "columns": {"text": ["text"]},
            "dataset": str(write_texts(folder / "texts")),
            "metric": "loss",
        },
        "target": {"metric": "macs", "keep": 0.75, "tolerance": 0.1},
        "calibration": {"samples": 32, "max_length": 32, "batch_tokens": 256},
        "evaluation": {"max_length": 32},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
        "artifacts": {"layout": "serve", "engines": ["vllm", "mlx"], "formats": ["safetensors", "gguf"], "gguf": ["F16"]},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COPPICE_ENGINES_DIR", str(folder / "none"))  # the proof has tests of its own, and takes minutes
        run(PruneSpec.model_validate(document), folder / "bundle", device="cpu")
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_sst2: Path) -> Path:
    """A folder with the bundle of a small classifier, in ONNX and OpenVINO's form, too."""
    folder = tmp_path_factory.mktemp("classifier")
    spec = tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json")
    spec["artifacts"] = {"layout": "stock", "formats": ["safetensors", "onnx", "openvino"]}
    run(PruneSpec.model_validate(spec), folder / "bundle", device="cpu")
    return folder


def _completed(folder: Path, name: str, python: Path, *, ask: str = "completions", more: str = "", **environment: str) -> str:
    """Run a server as a block says, and ask it as another says; return the text that it generates."""
    port = str(free_port())
    words = shlex.split(f"{block('serve.md', 'sh', name)} {more}".replace("8000", port))
    words = [str(python), *words[1:]] if words[0] == "python" else [str(python.with_name(words[0])), *words[1:]]
    with _running(words, folder, environment) as server:
        question = block("serve.md", "sh", ask).replace("8000", port)
        for _attempt in range(_START_S):
            assert server.poll() is None, (folder / "log").read_text()[-3000:]
            asked = subprocess.run(["sh", "-c", question], cwd=folder, capture_output=True, text=True, check=False)
            if asked.returncode == 0 and "choices" in asked.stdout:
                return json.loads(asked.stdout)["choices"][0]["text"]
            time.sleep(1)
        pytest.fail(f"{asked.stdout}\n{(folder / 'log').read_text()[-3000:]}")


@contextmanager
def _running(words: list[str], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    own = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", **environment}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, env=own, process_group=0)
    try:
        yield server
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


@pytest.fixture(scope="module")
def reference(decoder: Path) -> str:
    """What the guide's own lines for transformers print, less the prompt."""
    done = _python(decoder, "transformers")
    assert done.startswith("the cat and the dog")
    return done.rstrip("\n").removeprefix("the cat and the dog")


def _python(folder: Path, name: str) -> str:
    code = block("serve.md", "python", name)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Small jobs of vLLM: no compilation, and little memory for its cache.
_SMALL = "--dtype float32 --enforce-eager"
_CACHE = {"VLLM_CPU_KVCACHE_SPACE": "1"}


@engine
@pytest.mark.timeout(900)
def test_vllm_serves_it_with_our_distribution(decoder: Path, reference: str) -> None:
    python = _interpreter("vllm-plugin")
    assert _completed(decoder, "vllm-cpu", python, more=_SMALL, **_CACHE) == reference


@engine
@pytest.mark.timeout(900)
def test_vllm_serves_it_without_our_distribution_by_remote_code(decoder: Path, reference: str) -> None:
    python = _interpreter("vllm")
    # No plug-in of this name: as where our distribution is not installed.
    assert _completed(decoder, "vllm-remote-code", python, more=_SMALL, VLLM_PLUGINS="none", **_CACHE) == reference


def test_both_commands_of_vllm_say_the_same() -> None:
    own, cpu = (shlex.split(block("serve.md", "sh", name)) for name in ("vllm", "vllm-cpu"))
    assert own[:2] == ["vllm", "serve"]
    assert cpu[:4] == ["python", "-m", "vllm.entrypoints.openai.api_server", "--model"]
    assert own[2:] == cpu[4:]


@engine
@pytest.mark.timeout(900)
def test_llama_cpp_serves_its_file(decoder: Path, reference: str) -> None:
    assert _completed(decoder, "llama-cpp", _interpreter("llama.cpp")) == reference


@engine
@pytest.mark.timeout(900)
def test_mlx_serves_it(decoder: Path, reference: str) -> None:
    assert _completed(decoder, "mlx", _interpreter("mlx"), ask="mlx-completions") == reference


def _numbers(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


@engine
def test_onnx_runtime_and_openvino_give_the_same_from_their_forms(classifier: Path) -> None:
    graph, ir = _numbers(_python(classifier, "onnxruntime")), _numbers(_python(classifier, "openvino"))
    assert len(graph) == 4
    assert ir == pytest.approx(graph, rel=1e-2, abs=1e-3)  # OpenVINO's weights are of two bytes


@engine
def test_sentence_transformers_the_onnx_graph_and_the_server_give_the_same_embeddings(
    tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    from tests import tiny

    model = tiny.write_model(tmp_path / "embedder", "bert", task="feature-extraction")
    spec = tiny_spec(model, tiny_sst2).model_dump(mode="json")
    spec["task"] = {
        "type": "feature-extraction",
        "columns": {"text": ["sentence"]},
        "dataset": str(tiny_sst2),
        "metric": "cosine",
    }
    spec["artifacts"] = {"layout": "stock", "formats": ["safetensors", "onnx"]}
    run(PruneSpec.model_validate(spec), tmp_path / "bundle", device="cpu")
    embeddings = _numbers(_python(tmp_path, "sentence-transformers"))
    assert len(embeddings) == 2 * tiny.HIDDEN
    pooled = torch.tensor(_numbers(_python(tmp_path, "onnxruntime-embeddings"))).reshape(2, -1)
    expected = torch.nn.functional.normalize(torch.tensor(embeddings).reshape(2, -1))
    torch.testing.assert_close(pooled, expected, rtol=1e-3, atol=1e-3)
    port = str(free_port())
    code = block("serve.md", "python", "embeddings-server").replace("8000", port)
    question = block("serve.md", "sh", "embeddings").replace("8000", port)
    with _running([sys.executable, "-c", code], tmp_path, {"PYTHONPATH": str(ROOT)}) as server:
        for _attempt in range(_START_S):
            assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
            asked = subprocess.run(["sh", "-c", question], capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                break
            time.sleep(1)
    answered = [own["embedding"] for own in json.loads(asked.stdout)["data"]]
    torch.testing.assert_close(torch.tensor(answered).flatten(), torch.tensor(embeddings), rtol=1e-3, atol=1e-3)


@engine
def test_a_classifier_is_a_pipeline(classifier: Path) -> None:
    assert re.search(r"'label': '\w+', 'score': 0\.\d+", _python(classifier, "classifier"))


_TYPES = {"TYPE_INT64": "tensor(int64)", "TYPE_FP32": "tensor(float)"}


@pytest.mark.slow
@pytest.mark.long
def test_triton_s_configuration_names_what_the_graph_has(classifier: Path) -> None:
    config = block("serve.md", "text", "triton-config")
    entries = re.findall(r'name: "(\w+)" data_type: (\w+) dims: \[ (-?\d+), (-?\d+) \]', config)
    session = onnxruntime.InferenceSession(str(classifier / "bundle/onnx/model.onnx"))
    graph = [*session.get_inputs(), *session.get_outputs()]
    shapes = [[size if isinstance(size, int) else -1 for size in entry.shape] for entry in graph]
    found = [(entry.name, entry.type, *shape) for entry, shape in zip(graph, shapes, strict=True)]
    assert [(name, _TYPES[kind], int(rows), int(columns)) for name, kind, rows, columns in entries] == found
    subprocess.run(["sh", "-e", "-c", block("serve.md", "sh", "triton-repository")], cwd=classifier, check=True)
    assert (classifier / "model_repository/bundle/1/model.onnx").is_file()
    names = block("serve.md", "sh", "triton-names").replace("python", sys.executable, 1)
    told = subprocess.run(["sh", "-c", names], cwd=classifier, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in told.splitlines()] == [name for name, *_rest in entries]
