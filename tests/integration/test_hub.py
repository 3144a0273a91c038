"""Stock clients of the Hugging Face Hub download bundles from a real server: nothing of ours is in their process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import tiny
from tests.integration.service import Backend, Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Hub:
    """A running server and two repositories on it."""

    url: str
    classifier: str
    embedder: str
    bundles: Path


@pytest.fixture(scope="module")
def hub(tmp_path_factory, tiny_bert, tiny_sst2):
    """Two jobs done by the real service."""
    root = tmp_path_factory.mktemp("hub")
    encoder = tiny.write_model(root / "encoder", "bert", task="features")
    sentences = tiny.write_jsonl(root / "sentences")
    task = {"type": "feature-extraction", "dataset": str(sentences), "columns": {"text": ["text"]}, "metric": "cosine"}
    service = Service(Backend("local", root / "data", "", ""), root, tiny_bert, tiny_sst2, root)
    with service.running() as client:
        ids = [
            client.submit(tiny.tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json")).id,
            client.submit(tiny.tiny_spec(encoder, sentences, task=task).model_dump(mode="json")).id,
        ]
        for job_id in ids:
            job = client.wait(job_id)
            assert job.status == "succeeded", job.error
            client.download(job_id, root / "bundles" / job_id)
        yield Hub(service.url, *ids, root / "bundles")


def _stock(hub, home, code, *arguments, expect=0):
    """Run code in a fresh process that has the stock libraries and knows nothing of Coppice but an address."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "OMP_NUM_THREADS") if name in os.environ}
    environment = kept | {
        "HF_ENDPOINT": f"{hub.url}/hub",
        "HF_HOME": str(home),
        "HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    prelude = "import sys; sys.modules['pruning_core'] = None\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", prelude + code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout.splitlines()[-1] if done.stdout else done.stderr


def test_from_pretrained_and_pipeline(hub, tmp_path):
    code = """
import json
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
repo = sys.argv[1]
model = AutoModelForSequenceClassification.from_pretrained(repo, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(repo)
answer = pipeline("text-classification", model=repo, trust_remote_code=True)("word1 good word3")
print(json.dumps([sum(p.numel() for p in model.parameters()), len(tokenizer), answer[0]["label"]]))
"""
    parameters, words, label = json.loads(_stock(hub, tmp_path, code, f"jobs/{hub.classifier}"))
    report = json.loads((hub.bundles / hub.classifier / "report.json").read_text())
    assert parameters == report["parameters"]["pruned"]
    assert words == len(tiny.SPECIAL + tiny.WORDS)
    assert label.startswith("LABEL_")


def test_a_snapshot_is_the_bundle(hub, tmp_path):
    code = """
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
repo = sys.argv[1]
info = HfApi().model_info(repo)
first = snapshot_download(repo)
assert first.endswith(info.sha), (first, info.sha)
assert snapshot_download(repo, revision=info.sha) == first
assert sorted(HfApi().list_repo_files(repo)) == sorted(s.rfilename for s in info.siblings)
assert hf_hub_download(repo, "config.json").startswith(first)
print(first)
"""
    snapshot = Path(_stock(hub, tmp_path, code, f"jobs/{hub.embedder}"))
    bundle = hub.bundles / hub.embedder
    names = {path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()}
    assert {path.relative_to(snapshot) for path in snapshot.rglob("*") if path.is_file()} == names
    assert all((snapshot / name).read_bytes() == (bundle / name).read_bytes() for name in names)


def test_a_broken_download_is_resumed_and_a_whole_one_is_not_repeated(hub, tmp_path):
    code = """
import hashlib
import huggingface_hub.file_download as download
from huggingface_hub import hf_hub_download
repo, name = sys.argv[1], "model.safetensors"
path = hf_hub_download(repo, name)
content = open(path, "rb").read()
with open(sys.argv[2], "wb") as file:
    file.write(content[:1000])
    download.http_get(f"{sys.argv[3]}/hub/{repo}/resolve/main/{name}", file, resume_size=1000, expected_size=len(content))
assert open(sys.argv[2], "rb").read() == content
download.http_get = None  # whoever downloads again fails
assert hf_hub_download(repo, name) == path
print(hashlib.sha256(content).hexdigest())
"""
    digest = _stock(hub, tmp_path, code, f"jobs/{hub.classifier}", str(tmp_path / "part"), hub.url)
    manifest = json.loads((hub.bundles / hub.classifier / "manifest.json").read_text())
    assert digest == manifest["files"]["model.safetensors"]["sha256"]


@pytest.mark.long
def test_sentence_transformers(hub, tmp_path):
    code = """
import json, warnings
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], trust_remote_code=True)
embeddings = model.encode(["word1 good word3", "bad word5"])
print(json.dumps([embeddings.shape, [float((row ** 2).sum()) for row in embeddings]]))
"""
    shape, lengths = json.loads(_stock(hub, tmp_path, code, f"jobs/{hub.embedder}"))
    assert shape == [2, tiny.HIDDEN]
    assert lengths == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.long
def test_what_does_not_exist_is_missed_as_on_the_hub(hub, tmp_path):
    code = """
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
repo = sys.argv[1]
def raised(call):
    try:
        call()
    except Exception as error:
        return type(error)
for token in (False, "hf_some_token"):
    assert issubclass(raised(lambda: hf_hub_download("jobs/job_unknown", "config.json", token=token)), RepositoryNotFoundError)
    assert issubclass(raised(lambda: snapshot_download("bert-base-uncased", token=token)), RepositoryNotFoundError)
    assert issubclass(raised(lambda: HfApi().dataset_info("glue", token=token)), RepositoryNotFoundError)
assert issubclass(raised(lambda: hf_hub_download(repo, "nothing.txt")), EntryNotFoundError)
assert issubclass(raised(lambda: hf_hub_download(repo, "config.json", revision="v2")), RevisionNotFoundError)
assert issubclass(raised(lambda: snapshot_download(repo, revision="v2")), RevisionNotFoundError)
assert not HfApi().file_exists(repo, "nothing.txt") and HfApi().file_exists(repo, "config.json")
assert not HfApi().repo_exists("org/name") and HfApi().repo_exists(repo)
print("as on the Hub")
"""
    assert _stock(hub, tmp_path, code, f"jobs/{hub.classifier}") == "as on the Hub"
