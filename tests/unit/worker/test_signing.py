"""Bundles are signed by the supervisor; whoever has its public key can verify every file, and where the bundle comes from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement as PublishedStatement
from in_toto_attestation.v1.statement_pb2 import Statement as PublishedForm
from typer.testing import CliRunner

from app.jobs.records import Claim
from app.jobs.states import JobStatus
from app.settings import Settings, SettingsInvalid
from app.signing import check, private_key_path, public_key_of, public_keys
from coppice.cli import app
from pruning_core.errors import DatasetInvalid
from pruning_core.files.provenance import shown_spec
from pruning_core.spec.prune import PruneSpec
from tests.guides import block
from tests.unit.worker.conftest import Bench
from worker.launching import _inputs, _sources
from worker.signing import BundleSigner
from worker.sources import sources_of

UPLOAD = "mdl_" + "ab" * 32
SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})


def write_key(folder: Path, name: str = "other", curve: ec.EllipticCurve | None = None) -> tuple[Path, Path]:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed bundle and the public key."""
    bundle = tmp_path / "bundle"
    (bundle / "deep").mkdir(parents=True)
    (bundle / "model.safetensors").write_bytes(b"weights")
    (bundle / "deep" / "config.json").write_text("{}")
    private, public = write_key(tmp_path)
    claim = Claim(job_id="job_1", fence=2, attempt=1, spec=SPEC)
    BundleSigner(Settings(data_dir=tmp_path / "data", signing_key=private)).sign(bundle, claim, started=time.time() - 5)
    return bundle, public


def verify(bundle: Path, key: Path | None, *more: str) -> tuple[int, str]:
    line = ["verify", str(bundle), *(() if key is None else ("--key", str(key))), *more]
    done = CliRunner().invoke(app, line, env={"TERM": "dumb", "COLUMNS": "400"})
    return done.exit_code, " ".join(done.output.split())


def stock(bundle: Path, key: Path, *more: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "model_signing", "verify", "key", str(bundle), "--signature", str(bundle / "model.sig")]
    return subprocess.run([*line, "--public_key", str(key), *more], capture_output=True, text=True, check=False)


def test_a_finished_job_s_bundle_is_signed_and_verifies_by_our_command_and_by_the_stock_one(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run("succeed()")
    assert bench.artifacts(job_id) == ["deep/config.json", "model.safetensors", "model.sig", "provenance.json"]
    bundle = bench.notes / "downloaded"
    for name in bench.artifacts(job_id):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(b"".join(bench.store.open(f"jobs/{job_id}/1/{name}", 0, 2**20)))
    key = bench.notes / "key.pub"
    key.write_text(public_keys(bench.settings)[0].pem)
    code, told = verify(bundle, key)
    assert code == 0, told
    assert "3, each as it was signed" in told
    assert f"{job_id}/1" in told
    assert public_keys(bench.settings)[0].id in told
    done = stock(bundle, key, "--ignore-paths", str(bundle / "model.sig"))
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout
    (bundle / "deep/config.json").write_text("{ }")
    assert stock(bundle, key).returncode != 0


def test_what_was_verified_is_one_json_document(signed: tuple[Path, Path]) -> None:
    bundle, key = signed
    code, told = verify(bundle, key, "--json")
    assert code == 0
    document = json.loads(told)
    assert set(document["files"]) == {"deep/config.json", "model.safetensors", "provenance.json"}
    assert document["provenance"] == json.loads((bundle / "provenance.json").read_text())


def _link_away(bundle: Path) -> None:
    (bundle / "deep" / "config.json").unlink()
    (bundle / "deep").rmdir()
    elsewhere = bundle.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text("{}")
    (elsewhere / "more.py").write_text("evil")
    (bundle / "deep").symlink_to(elsewhere)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed file": (
        lambda bundle: (bundle / "model.safetensors").write_bytes(b"weightz"),
        r"changed: 'model\.safetensors'$",
    ),
    "a missing file": (lambda bundle: (bundle / "deep/config.json").unlink(), r"missing: 'deep/config\.json'$"),
    "a file more": (lambda bundle: (bundle / "modeling_x.py").write_text("evil"), r"all the same: 'modeling_x\.py'$"),
    "a hidden file": (lambda bundle: (bundle / ".gitattributes").write_text("*"), r"all the same: '\.gitattributes'$"),
    "a name for terminals": (lambda bundle: (bundle / "\x1b[2Jx").write_text(""), r"all the same: '\\x1b\[2Jx'$"),
    "another statement": (
        lambda bundle: (bundle / "provenance.json").write_text((bundle / "provenance.json").read_text().replace("0.5", "0.9")),
        r"changed: 'provenance\.json'$",
    ),
    "a linked folder": (_link_away, "'deep' is a link to a folder"),
    "a pipe": (lambda bundle: os.mkfifo(bundle / "pipe"), "'pipe' is a link to a folder or to nothing, or no file at all"),
    "no signature": (lambda bundle: (bundle / "model.sig").unlink(), "not signed: there is no model.sig in it"),
    "half a signature": (lambda bundle: (bundle / "model.sig").write_text('{"mediaType": 1}'), "is no signature by this key"),
    "a nested signature": (lambda bundle: (bundle / "model.sig").write_text("[" * 100_000), "is no signature by this key"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_bundle_that_was_changed_is_refused_and_the_change_named(signed: tuple[Path, Path], name: str) -> None:
    bundle, key = signed
    change, sentence = CHANGES[name]
    change(bundle)
    code, told = verify(bundle, key)
    assert code == 1
    assert re.search(sentence, told), told


def test_all_changes_are_named_together(signed: tuple[Path, Path]) -> None:
    bundle, key = signed
    for name in ("a changed file", "a missing file", "a file more"):
        CHANGES[name][0](bundle)
    _, told = verify(bundle, key)
    assert "changed: 'model.safetensors'; missing: 'deep/config.json'; not signed" in told


def test_a_bundle_that_another_has_signed_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, key = signed
    private, _public = write_key(tmp_path, "forger")
    claim = Claim(job_id="job_1", fence=2, attempt=1, spec=SPEC)
    forger = Settings(data_dir=tmp_path / "data", signing_key=private)
    BundleSigner(forger).sign(bundle, claim, started=time.time())
    code, told = verify(bundle, key)
    assert code == 1
    assert f"signed by another key: by {public_key_of(private).id}" in told
    signature = json.loads((bundle / "model.sig").read_text())
    signature["verificationMaterial"]["publicKey"]["hint"] = ""  # it does not even say by whom
    (bundle / "model.sig").write_text(json.dumps(signature))
    code, told = verify(bundle, key)
    assert code == 1
    assert "the signature is not of this key" in told


def test_a_signature_that_leaves_files_out_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    from model_signing import hashing, signing

    bundle, key = signed
    config = hashing.Config().set_ignored_paths(paths=["model.sig", "deep"])
    signer = signing.Config().set_hashing_config(config).use_elliptic_key_signer(private_key=tmp_path / "other.pem")
    signer.sign(bundle, bundle / "model.sig")
    code, told = verify(bundle, key)
    assert code == 1
    assert "'deep'" in told


def test_a_statement_about_other_files_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    from model_signing import hashing, signing

    bundle, key = signed
    (bundle / "model.safetensors").write_bytes(b"other weights")
    config = hashing.Config().set_ignored_paths(paths=["model.sig"], ignore_git_paths=False)
    signer = signing.Config().set_hashing_config(config).use_elliptic_key_signer(private_key=tmp_path / "other.pem")
    signer.sign(bundle, bundle / "model.sig")
    code, told = verify(bundle, key)
    assert code == 1
    assert "provenance.json is about other files" in told


def test_the_key_must_be_given_and_be_a_key(signed: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, key = signed
    code, told = verify(bundle, None)
    assert code == 2
    assert "by another way than the bundle came" in told
    assert "proves little" in told
    other = tmp_path / "rsa.pub"
    public = rsa.generate_private_key(65537, 2048).public_key()
    other.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    for wrong, sentence in (
        (other, "curve P-256"),
        (bundle / "model.sig", "must be PEM"),
        (tmp_path / "none", "cannot be read"),
    ):
        code, told = verify(bundle, wrong)
        assert (code, sentence in told) == (2, True), told
    assert verify(tmp_path / "nowhere", key)[0] == 2


def test_files_of_the_hub_s_cache_are_links_and_verify(signed: tuple[Path, Path]) -> None:
    bundle, key = signed
    blob = bundle.parent / "blob"
    (bundle / "model.safetensors").rename(blob)
    (bundle / "model.safetensors").symlink_to(blob)
    assert verify(bundle, key)[0] == 0
    blob.write_bytes(b"changed")
    assert verify(bundle, key)[0] == 1


# --- the statement ----------------------------------------------------------------------------------------------------


def test_the_statement_is_of_the_published_form(signed: tuple[Path, Path]) -> None:
    text = (signed[0] / "provenance.json").read_text()
    document = json.loads(text)
    # in-toto's own types: unknown fields and wrong types are errors.
    statement = json_format.Parse(text, PublishedForm())
    PublishedStatement.copy_from_pb(statement).validate()
    json_format.ParseDict(document["predicate"], Provenance())
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://slsa.dev/provenance/v1"
    definition, run = document["predicate"]["buildDefinition"], document["predicate"]["runDetails"]
    assert re.fullmatch(r"[a-z]+:\S+", definition["buildType"])
    assert re.fullmatch(r"urn:coppice:worker:key:sha256:[0-9a-f]{64}", run["builder"]["id"])
    assert run["metadata"]["invocationId"] == "job_1/2"
    started, finished = (datetime.fromisoformat(run["metadata"][name]) for name in ("startedOn", "finishedOn"))
    assert 4 <= (finished - started).total_seconds() <= 60
    assert {"torch", "transformers", "coppice-prune"} <= set(run["builder"]["version"])
    assert definition["externalParameters"]["spec"]["target"] == {"metric": "sparsity", "sparsity": 0.5, "tolerance": 0.01}
    assert {file["name"] for file in document["subject"]} == {"deep/config.json", "model.safetensors"}
    for source in definition["resolvedDependencies"]:
        assert set(source) & {"uri", "digest"}


def claim(spec: PruneSpec) -> Claim:
    return Claim("job_1", 1, 1, spec)


def test_sources_have_digests_and_no_places(tmp_path: Path) -> None:
    models, data = tmp_path / "models", tmp_path / "data sets"
    for path in (models / "mini" / "config.json", models / "mini" / ".cache" / "x", data / "sst2" / "train.csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of {}
    settings = Settings(data_dir=tmp_path / "state", allowed_roots=(models,))
    task = SPEC.task.but(dataset=str(data / "sst2"))
    later = time.time() + 10
    found = sources_of(claim(SPEC.but(model=str(models / "mini"), task=task)), settings, since=later)
    shown = [source.model_dump(exclude_none=True) for source in found]
    why = "none: a file lies outside of the folders that this service may read"
    assert shown == [
        {"name": "model/config.json", "uri": "urn:coppice:path:mini", "digest": {"sha256": empty}},
        {"name": "dataset", "uri": "urn:coppice:path:sst2", "annotations": {"digests": why}},
    ]
    assert str(tmp_path) not in json.dumps(shown)
    changed = sources_of(claim(SPEC.but(model=str(models / "mini"))), settings, since=time.time() - 10)[0]
    assert changed.annotations == {"digests": "none: a file was changed while the job ran"}
    uploaded = sources_of(claim(SPEC.but(model=str(tmp_path / UPLOAD), revision=None)), settings, since=later)[0]
    assert (uploaded.uri, uploaded.digest) == (f"urn:coppice:upload:{UPLOAD}", {"sha256": "ab" * 32})


def test_a_hub_model_is_named_with_the_commit_of_the_worker_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "c" * 40
    repository = tmp_path / "models--org--name"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model, data = sources_of(claim(SPEC), Settings(data_dir=tmp_path), since=0)
    assert (model.uri, model.digest) == (f"hf://org/name@{commit}", {"gitCommit": commit})
    assert (data.uri, data.digest) == (f"hf://datasets/{SPEC.task.dataset}", None)


# --- what the child may try -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["Path.symlink_to(x, secret)", "Path.symlink_to(x, secret.parent)", "os.mkfifo(x)"])
def test_a_link_in_a_bundle_publishes_nothing_of_the_host(bench: Bench, make: str) -> None:
    secret = bench.notes / "hidden" / "secret"
    secret.parent.mkdir()
    secret.write_text("the server's secret")
    job_id = bench.submit()
    bench.run(f"succeed(); secret, x = Path({str(secret)!r}), scratch / 'bundle/x'; {make}")
    assert bench.row(job_id).status == JobStatus.QUEUED
    assert bench.artifacts(job_id) == []
    assert not any(b"the server's" in path.read_bytes() for path in bench.settings.data_dir.rglob("*") if path.is_file())


def test_without_a_key_a_link_is_refused_too(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"database_url": bench.settings.resolved_database_url})
    job_id = bench.submit()
    bench.run("succeed(); (scratch / 'bundle/x').symlink_to('/etc/passwd')")
    assert (bench.row(job_id).status, bench.artifacts(job_id)) == (JobStatus.QUEUED, [])


@pytest.mark.parametrize("name", ["model.sig", "provenance.json"])
@pytest.mark.parametrize("kind", ["write_text('forged')", "mkdir()", "symlink_to('/etc/passwd')"])
def test_what_the_child_leaves_under_our_names_is_replaced(bench: Bench, name: str, kind: str) -> None:
    job_id = bench.submit()
    bench.run(f"succeed(); (scratch / 'bundle' / {name!r}).{kind}")
    assert bench.row(job_id).status == JobStatus.SUCCEEDED
    content = b"".join(bench.store.open(f"jobs/{job_id}/1/{name}", 0, 2**20))
    assert json.loads(content)


def test_a_candidate_of_a_failed_job_is_not_signed(bench: Bench) -> None:
    job_id = bench.submit()
    bench.run("succeed()\nfail(code='target_missed', message='too coarse', param='target')")
    assert bench.row(job_id).status == JobStatus.FAILED
    assert "model.sig" not in bench.artifacts(job_id)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_local_profile_makes_its_key_once_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    path = private_key_path(settings)
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert private_key_path(settings) == path
    assert len({public_keys(settings) for _ in range(2)}) == 1
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_keys_of_the_guide_s_commands_sign(tmp_path: Path) -> None:
    subprocess.run(["sh", "-e", "-c", block("origin.md", "sh", "keys")], cwd=tmp_path, check=True, capture_output=True)
    settings = Settings(data_dir=tmp_path, signing_key=tmp_path / "signing.pem")
    published = Settings(data_dir=tmp_path, signing_public_keys=(tmp_path / "signing.pub",))
    assert public_keys(settings) == public_keys(published)


def test_with_a_database_of_its_own_a_service_signs_only_with_a_given_key(tmp_path: Path, bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"database_url": bench.settings.resolved_database_url})
    assert private_key_path(bench.settings) is None
    assert public_keys(bench.settings) == ()
    job_id = bench.submit()
    bench.run("succeed()")
    assert bench.artifacts(job_id) == ["deep/config.json", "model.safetensors"]


def test_a_key_that_goes_away_fails_the_attempt_and_publishes_nothing_unsigned(bench: Bench, tmp_path: Path) -> None:
    private, _ = write_key(tmp_path)
    bench.settings = bench.settings.model_copy(update={"signing_key": private})
    job_id = bench.submit()
    private.unlink()
    bench.run("succeed()")
    assert (bench.row(job_id).status, bench.artifacts(job_id)) == (JobStatus.QUEUED, [])
    assert str(tmp_path) not in json.dumps(bench.row(job_id).error)


def test_public_keys_are_those_that_are_listed_and_the_api_needs_no_private_one(tmp_path: Path) -> None:
    (private, new), (_, old) = write_key(tmp_path, "new"), write_key(tmp_path, "old", ec.SECP384R1())
    listed = Settings(data_dir=tmp_path, signing_key=tmp_path / "not here", signing_public_keys=(new, old, new))
    assert [key.pem for key in public_keys(listed)] == [new.read_text(), old.read_text()]
    assert public_keys(Settings(data_dir=tmp_path, signing_key=private)) == public_keys(listed)[:1]


@pytest.mark.long
def test_a_wrong_key_is_said_when_a_process_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = write_key(tmp_path)
    secp256k1, _ = write_key(tmp_path, "bitcoin", ec.SECP256K1())
    for changes, sentence in (
        ({"signing_key": public}, "COPPICE_SIGNING_KEY: must name the PEM file of a private key"),
        ({"signing_key": secp256k1}, "on the curve P-256"),
        ({"signing_key": tmp_path / "none.pem"}, "none.pem cannot be read"),
        ({"signing_public_keys": (private,)}, "COPPICE_SIGNING_PUBLIC_KEYS: must name PEM files of public keys"),
    ):
        with pytest.raises(SettingsInvalid, match=re.escape(sentence)):
            check(Settings(data_dir=tmp_path, **changes))
    environment = os.environ | {"COPPICE_SIGNING_KEY": str(public), "COPPICE_DATA_DIR": str(tmp_path / "data")}
    for module in (["worker.main"], ["uvicorn", "app.main:create_app", "--factory", "--port", "0"]):
        line = [sys.executable, "-m", *module]
        done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode not in (0, None)
        assert "COPPICE_SIGNING_KEY: must name" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


def test_data_of_further_sets_are_fetched_and_told_of_under_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "validation.csv").write_text("{}")
    also = [{"name": "hub", "data": "org/other@v1"}, {"name": "own", "data": str(tmp_path / "own")}]
    spec = SPEC.but(evaluation={"also": also})
    settings = Settings(data_dir=tmp_path / "state", allowed_roots=(tmp_path,))
    found = [source.name for source in sources_of(claim(spec), settings, since=time.time() + 10)]
    assert found[-2:] == ["evaluation.also.0/dataset", "evaluation.also.1/dataset/validation.csv"]
    fetched = [(source.reference, source.revision) for source in _sources(settings, spec) if source.kind == "dataset"]
    assert fetched[-1] == ("org/other", "v1")
    assert tmp_path / "own" in _inputs(settings, spec)
    (tmp_path / "moved").symlink_to(tmp_path / "own")
    led_away = SPEC.but(evaluation={"also": [{"name": "own", "data": str(tmp_path / "moved")}]})
    with pytest.raises(DatasetInvalid, match="leads elsewhere") as refused:
        _inputs(settings, led_away)
    assert refused.value.param == "evaluation.also.0.data"
    shown = shown_spec(spec)["evaluation"]["also"]
    assert [own["data"] for own in shown] == ["org/other", "own"], "no place of the server is told"
