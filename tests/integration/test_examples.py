"""The examples of docs/examples, run as they stand, with tiny models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from coppice import Client
from coppice.examples import write_docstrings, write_pairs
from tests import engines, gguf_models, tiny
from tests.guides import GUIDES
from tests.integration.test_tutorials import OF_THE_TUTORIAL
from tests.oidc import provider
from tests.servers import free_port
from tests.serving import Serving

pytestmark = pytest.mark.long

EXAMPLES = GUIDES.parent / "examples"


def run_example(name: str, *arguments: object, cwd: Path, **changes: str) -> str:
    """Run one as its users do, with ``coppice`` and ``python`` of this environment on the PATH."""
    here = str(Path(sys.executable).parent)
    environment = {own: value for own, value in os.environ.items() if not own.startswith("COPPICE_")}
    environment |= {"PATH": os.pathsep.join((here, os.environ["PATH"])), "OMP_NUM_THREADS": "1"} | changes
    runner = ["bash"] if name.endswith(".sh") else [sys.executable]
    done = subprocess.run(
        [*runner, str(EXAMPLES / name), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_an_encoder_for_a_pipeline(tiny_bert, tiny_sst2, tmp_path):
    printed = run_example("encoder.sh", tiny_bert, tiny_sst2, tmp_path / "bundle", cwd=tmp_path, FLOOR="0.01")
    assert "'label'" in printed


def test_sentence_embeddings_for_a_search(tiny_bert, tmp_path):
    write_docstrings(tmp_path / "texts")
    printed = run_example("embeddings.py", tiny_bert, tmp_path / "texts", tmp_path / "bundle", cwd=tmp_path)
    assert re.search(r"\d+% of 50 queries find the same text first", printed)


def test_a_chat_model_for_llama_cpp(tmp_path):
    sizes = gguf_models.GROUPED | {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    model = gguf_models.write(tmp_path / "model", transformers.LlamaConfig(**sizes), gguf_models.byte_tokenizer(None))
    texts = engines.write_texts(tmp_path / "texts")
    printed = run_example("chat_to_gguf.sh", model, texts, tmp_path / "bundle", cwd=tmp_path)
    assert "model-Q8_0.gguf" in printed


def test_a_budget_of_bytes(tiny_bert, tmp_path):
    write_pairs(tmp_path / "pairs")
    dense = sum(path.stat().st_size for path in Path(tiny_bert).glob("*.safetensors"))
    budget = int(0.6 * dense)
    printed = run_example("byte_budget.sh", tiny_bert, tmp_path / "pairs", budget, tmp_path / "bundle", cwd=tmp_path)
    held = int(re.search(r"([\d,]+) bytes of weight files", printed)[1].replace(",", ""))
    assert 0.3 * budget < held <= budget


def test_a_nightly_pipeline_makes_its_job_once(tiny_bert, tiny_sst2, tmp_path):
    (tmp_path / "example").mkdir()
    model, data = tiny.write_model(tmp_path / "example" / "model", "bert"), tiny.write_dataset(tmp_path / "example" / "data")
    with Serving(tmp_path, *OF_THE_TUTORIAL) as (_process, url), Client(url) as client:
        for out in ("first", "second"):
            run_example("nightly.py", url, model, data, "2026-11-29", tmp_path / out, cwd=tmp_path)
            assert (tmp_path / out / "model.safetensors").is_file()
        assert [job.id for job in client.list()] == ["nightly-2026-11-29"]


def test_a_teams_server_with_sign_in(tmp_path):
    with provider(tmp_path) as running:
        changes = {"COPPICE_OIDC_CLIENT_SECRET": "not so secret"}
        printed = run_example("team_server.sh", running.url, free_port(), tmp_path, cwd=tmp_path, **changes)
    assert "Sign in with Example" in printed
