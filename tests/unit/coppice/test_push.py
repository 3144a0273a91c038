"""``coppice push``: to a Hub, an object store, a registry and a service, each of them a real server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coppice.client import Client
from coppice.pushing import oci
from coppice.pushing.base import Account, PushRefused
from coppice.pushing.bundle import read_bundle
from coppice.pushing.destinations import OciArtifact
from pruning_core.artifacts.bundle import write_manifest
from tests.oci_registry import PASSWORD, USER, OciRegistry, oci_registry
from tests.servers import free_port
from tests.unit.coppice.conftest import FILES, Live
from tests.unit.coppice.pushing import WEIGHTS, digest_of, push, whole, write_bundle
from tests.writable_hub import READER, TOKEN, WritableHub, writable_hub


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def hub() -> Iterator[WritableHub]:
    with writable_hub() as own:
        yield own


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OciRegistry]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # not the developer's own docker login
    monkeypatch.delenv("ORAS_USER", raising=False)
    with oci_registry() as own:
        yield own


def to_hub(hub: WritableHub, home: Path, *line: str | Path, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    """Push in a process of its own: huggingface_hub reads the environment when it is imported."""
    own = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "400"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | own
    environment |= {} if token is None else {"HF_TOKEN": token}
    command = [sys.executable, "-m", "coppice.cli", "push", *map(str, line)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_bundle_goes_to_the_hub_in_one_commit_and_again_in_none(bundle: Path, hub: WritableHub, tmp_path: Path) -> None:
    first = to_hub(hub, tmp_path, bundle, "hf://me/small", "--message", "half the size")
    assert first.returncode == 0, first.stderr
    repository = hub.repositories["me/small"]
    files = {name: content for name, content in repository.branches["main"].items() if name != ".gitattributes"}
    assert files == whole(bundle)
    assert (repository.private, repository.messages) == (True, ["half the size"])
    assert f"{hub.url}/me/small" in first.stdout
    assert f"sha256:{digest_of(bundle)} (7 files sent" in first.stdout
    assert hub.uploads == [hashlib.sha256(WEIGHTS).hexdigest()]

    again = to_hub(hub, tmp_path, bundle, "hf://me/small", "--json")
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["sent"], told["sent_bytes"], len(told["files"])) == ([], 0, 7)
    assert (len(repository.messages), len(hub.uploads)) == (1, 1)
    assert TOKEN not in first.stdout + first.stderr + again.stdout + again.stderr


def test_a_branch_of_the_hub_is_made_and_holds_what_is_new(bundle: Path, hub: WritableHub, tmp_path: Path) -> None:
    assert to_hub(hub, tmp_path, bundle, "hf://me/small", "--public").returncode == 0
    (bundle / "config.json").write_text('{"changed": true}')
    (bundle / "manifest.json").unlink()
    write_manifest(bundle)
    done = to_hub(hub, tmp_path, bundle, "hf://me/small@half", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert sorted(told["sent"]) == ["config.json", "manifest.json"]
    assert told["url"] == f"{hub.url}/me/small/tree/half"
    repository = hub.repositories["me/small"]
    assert not repository.private
    assert repository.branches["half"]["config.json"] == b'{"changed": true}'
    assert repository.branches["main"]["config.json"] == b"{}"


def test_a_failed_commit_leaves_nothing_and_large_files_are_not_sent_twice(
    bundle: Path, hub: WritableHub, tmp_path: Path
) -> None:
    hub.failing = True
    broken = to_hub(hub, tmp_path, bundle, "hf://me/small")
    assert broken.returncode == 3, broken.stderr
    assert "out of order (500)" in broken.stderr
    assert set(hub.repositories["me/small"].branches["main"]) == {".gitattributes"}
    hub.failing = False
    assert to_hub(hub, tmp_path, bundle, "hf://me/small").returncode == 0
    assert len(hub.uploads) == 1


@pytest.mark.parametrize(
    ("token", "to", "code", "words"),
    [
        (None, "hf://me/small", 2, "the Hub wants a token, and none was given: export HF_TOKEN="),
        ("hf_wrong", "hf://me/small", 2, "does not take the token of HF_TOKEN"),
        (READER, "hf://me/small", 2, "the token may not write to me/small"),
        (TOKEN, "hf://others/small", 2, "is others your name there, or an organization of yours?"),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_way_out(
    bundle: Path, hub: WritableHub, tmp_path: Path, token: str | None, to: str, code: int, words: str
) -> None:
    done = to_hub(hub, tmp_path, bundle, to, token=token)
    assert (done.returncode, words in " ".join(done.stderr.split())) == (code, True), done.stderr
    assert done.stdout == ""
    assert hub.repositories == {}
    assert (token or "hf_") + "_" not in done.stderr


def test_a_bundle_meant_to_be_private_is_not_pushed_to_a_public_repository(
    bundle: Path, hub: WritableHub, tmp_path: Path
) -> None:
    assert to_hub(hub, tmp_path, bundle, "hf://me/small", "--public").returncode == 0
    done = to_hub(hub, tmp_path, bundle, "hf://me/small", "--private")
    assert (done.returncode, "exists and is public" in done.stderr) == (2, True)


def test_a_hub_that_does_not_answer_is_named(bundle: Path, tmp_path: Path) -> None:
    done = to_hub(WritableHub(f"http://127.0.0.1:{free_port()}"), tmp_path, bundle, "hf://me/small")
    assert (done.returncode, "no answer from the Hub at http://127.0.0.1" in done.stderr) == (3, True), done.stderr


def test_a_bundle_goes_to_an_object_store_and_only_what_is_missing_is_sent_again(bundle: Path, s3_bucket: str) -> None:
    import boto3

    code, told, said = push(bundle, f"s3://{s3_bucket}/models/small/")
    assert code == 0, said
    assert told.startswith(f"s3://{s3_bucket}/models/small sha256:{digest_of(bundle)} (7 files sent")
    bucket = boto3.resource("s3").Bucket(s3_bucket)
    stored = {item.key: item.get()["Body"].read() for item in bucket.objects.all()}
    assert stored == {f"models/small/{name}": content for name, content in whole(bundle).items()}

    bucket.Object("models/small/config.json").put(Body=b"{1")  # of the same size, and other content
    bucket.Object("models/small/older.bin").put(Body=b"x")
    code, told, said = push(bundle, f"s3://{s3_bucket}/models/small", "--json")
    assert (code, json.loads(told)["sent"]) == (0, ["config.json"])
    assert "holds other files, too, which are not of this bundle: 'older.bin'" in said
    assert bucket.Object("models/small/config.json").get()["Body"].read() == b"{}"


def test_what_an_object_store_refuses_is_said_with_the_way_out(
    bundle: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, _told, said = push(bundle, "s3://no-such-bucket/small")
    assert (code, "there is no bucket no-such-bucket there; make it first" in said) == (2, True), said
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, _told, said = push(bundle, f"s3://{s3_bucket}/small")
    assert (code, "no answer from the object store" in said) == (3, True), said
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    code, _told, said = push(bundle, f"s3://{s3_bucket}/small")
    assert (code, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said) == (2, True), said


@pytest.mark.parametrize("guarded", [None, "token", "basic"])
def test_a_bundle_goes_to_a_registry_and_oras_pulls_it_as_it_was(
    bundle: Path, registry: OciRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded: str | None
) -> None:
    import oras.client

    to = f"oci://{registry.host}/me/small:0.5"
    if guarded is not None:
        registry.guarded = guarded
        code, _told, said = push(bundle, to)
        assert (code, f"{registry.host} wants credentials: docker login" in said) == (2, True), said
        monkeypatch.setenv("ORAS_USER", USER)
        monkeypatch.setenv("ORAS_PASS", PASSWORD)
    code, told, said = push(bundle, to, "--json")
    assert code == 0, said
    found = json.loads(told)
    (manifest,) = registry.manifests.values()
    assert found["version"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert PASSWORD not in told + said
    sent = len(registry.sent)
    assert json.loads(push(bundle, to, "--json")[1])["version"] == found["version"]
    assert len(registry.sent) == sent, "the same content is sent once"

    registry.guarded = None
    oras.client.OrasClient(insecure=True).pull(target=to.removeprefix("oci://"), outdir=str(tmp_path / "pulled"))
    pulled = {str(path.relative_to(tmp_path / "pulled")): path.read_bytes() for path in (tmp_path / "pulled").rglob("*.*")}
    assert {name: content for name, content in pulled.items() if name in whole(bundle)} == whole(bundle)


def test_rows_of_the_users_data_are_sent_only_if_that_is_said(bundle: Path, registry: OciRegistry) -> None:
    report = {"where": {"examples": [{"row": 4, "texts": ["a secret"]}, {"row": 9, "texts": ["another"]}]}}
    (bundle / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (bundle / "keep-0.5").mkdir()
    (bundle / "keep-0.5" / "report.json").write_text(json.dumps({"where": None}), encoding="utf-8")
    (bundle / "manifest.json").unlink()
    write_manifest(bundle)
    to = f"oci://{registry.host}/me/rows:1"
    code, _, stderr = push(bundle, to)
    assert code == 2
    assert "quotes 2 rows of your evaluation data" in stderr
    assert "--with-rows" in stderr
    assert push(bundle, to, "--dry-run")[0] == 2
    assert push(bundle, to, "--with-rows")[0] == 0


LENGTHS = {"name": "up to 9 tokens", "column": None}
NAMES = [{"name": name, "column": "customer"} for name in ("Ada", "Bo")]


@pytest.mark.parametrize(
    ("where", "quoted", "remedy"),
    [
        (
            {"slices": [LENGTHS, *NAMES]},
            "2 values of its columns (customer), which",
            "pruned without evaluation.slices has none",
        ),
        (
            {"examples": [{"row": 1}], "slices": [*NAMES, {"name": 3, "column": "age"}]},
            "1 row of your evaluation data and 3 values of its columns (customer, age), which",
            "pruned with evaluation.examples 0 and without evaluation.slices has none",
        ),
        ({"slices": [LENGTHS], "examples": []}, None, ""),
        ({"slices": 3, "examples": "no report of ours"}, None, ""),
    ],
)
def test_values_of_the_users_columns_are_of_the_users_data_too(
    bundle: Path, registry: OciRegistry, where: dict[str, Any], quoted: str | None, remedy: str
) -> None:
    (bundle / "report.json").write_text(json.dumps({"where": where}), encoding="utf-8")
    (bundle / "manifest.json").unlink()
    write_manifest(bundle)
    to = f"oci://{registry.host}/me/slices:1"
    code, _, stderr = push(bundle, to)
    if quoted is None:
        assert code == 0, stderr
        return
    said = " ".join(stderr.split())
    assert code == 2
    assert f"the bundle's report quotes {quoted} readers of the destination would see: --with-rows sends them" in said
    assert remedy in said
    assert "Ada" not in stderr
    assert registry.manifests == {}
    assert push(bundle, to, "--with-rows")[0] == 0


def test_an_interrupted_push_says_what_is_there_and_goes_on_from_there(bundle: Path, registry: OciRegistry) -> None:
    registry.breaks_after = 3
    to = f"oci://{registry.host}/me/small:0.5"
    code, told, said = push(bundle, to)
    assert (code, told) == (3, ""), said
    assert "interrupted: 3 of 7 files are there; the same command sends the others" in said
    assert "is busy or out of order (503)" in said
    assert registry.manifests == {}
    registry.breaks_after = None
    assert "4 files sent" in push(bundle, to)[1]


def test_a_file_that_is_changed_after_it_was_verified_is_not_sent(bundle: Path, registry: OciRegistry) -> None:
    read = read_bundle(bundle, None, lambda *_told: None)
    (bundle / "model.safetensors").write_bytes(WEIGHTS[::-1])
    account = Account(read, lambda *_told: None)
    with pytest.raises(PushRefused, match=r"'model\.safetensors' was changed after it was verified"):
        oci.push(read, OciArtifact(registry.host, "me/small", "0.5"), account)
    assert registry.manifests == {}
    assert hashlib.sha256(WEIGHTS[::-1]).hexdigest() not in str(registry.sent)


def test_an_interruption_by_the_user_says_what_is_there(bundle: Path, registry: OciRegistry) -> None:
    registry.breaks_after, registry.hangs = 3, True
    command = [sys.executable, "-m", "coppice.cli", "push", str(bundle), f"oci://{registry.host}/me/small:0.5"]
    heard = ["env", "--default-signal=INT", *command]  # whoever runs the tests in the background has it ignored
    with subprocess.Popen(heard, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert registry.hanging.wait(60)
        process.send_signal(signal.SIGINT)
        told, said = process.communicate(timeout=30)
    registry.goes_on.set()
    assert (process.returncode != 0, told) == (True, "")
    assert "interrupted: 3 of 7 files are there; the same command sends the others" in " ".join(said.split())
    assert "Traceback" not in said


def test_what_a_registry_refuses_is_said_at_once(bundle: Path, registry: OciRegistry) -> None:
    registry.reads_only = True
    started = time.monotonic()
    code, _told, said = push(bundle, f"oci://{registry.host}/me/small:0.5")
    assert (code, "may not write to" in said) == (2, True), said
    code, _told, said = push(bundle, f"oci://127.0.0.1:{free_port()}/me/small:0.5")
    assert (code, "no answer from the registry" in said) == (3, True), said
    assert time.monotonic() - started < 10, "oras alone repeats for two minutes"


def test_the_model_of_a_bundle_goes_to_another_service(live: Live, tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)
    (folder / "report.html").write_text("report")
    write_manifest(folder)
    code, told, said = push(folder, live.url, "--json")
    assert code == 0, said
    found = json.loads(told.splitlines()[-1])  # before it, the service's own log
    assert "left out: 'manifest.json', 'report.html'" in said
    with Client(live.url) as client:
        upload = client.uploaded_model(found["version"])
        assert upload is not None
        assert upload.size == found["bytes"] == found["sent_bytes"]
        assert client.uploaded_model("mdl_" + "0" * 64) is None
    again = json.loads(push(folder, live.url, "--json")[1].splitlines()[-1])
    assert (again["sent"], again["version"]) == ([], found["version"])


def test_a_service_that_refuses_or_does_not_answer_is_told_apart(
    guarded: Live, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _told, said = push(bundle, guarded.url)
    assert (code, "the service wants an API key, and none was given" in said) == (2, True), said
    monkeypatch.setenv("COPPICE_API_KEY", guarded.key())
    code, _told, said = push(bundle, guarded.url)
    assert code == 2, "a config.json of nothing is no model"
    assert "config.json" in said
    code, _told, said = push("job_1", f"http://127.0.0.1:{free_port()}", "--url", guarded.url)
    assert (code, "give --destination-key" in said) == (2, True), said


@pytest.mark.long
def test_a_job_of_the_service_is_fetched_and_held_against_its_manifest(
    live: Live, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Client(live.url) as client:
        job = client.submit(live.spec)
    for name, content in FILES.items():
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_bytes(content)
    write_manifest(tmp_path / "made")
    monkeypatch.setitem(FILES, "manifest.json", (tmp_path / "made" / "manifest.json").read_bytes())
    live.succeed()
    code, told, said = push(job.id, f"s3://{s3_bucket}/small", "--url", live.url, "--json")
    assert code == 0, said
    assert sorted(json.loads(told.splitlines()[-1])["sent"]) == sorted(FILES)
    code, _told, said = push("job_unknown", f"s3://{s3_bucket}/small", "--url", live.url)
    assert (code, "no folder or archive job_unknown, and no such job at" in said) == (2, True), said
