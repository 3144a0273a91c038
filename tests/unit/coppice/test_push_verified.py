"""``coppice push``: what is no bundle, or not as it was signed, is not sent; archives; destinations that are none."""

from __future__ import annotations

import hashlib
import json
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from app.jobs.records import Claim
from app.settings import Settings
from pruning_core.spec.prune import PruneSpec
from tests.unit.coppice.pushing import WEIGHTS, digest_of, push, whole, write_bundle
from tests.unit.worker.test_signing import write_key
from worker.signing import BundleSigner


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def _swap(bundle: Path) -> None:
    (bundle / "model.safetensors").write_bytes(WEIGHTS[::-1])


def _grow(bundle: Path) -> None:
    (bundle / "config.json").write_text("{ }")


def _drop(bundle: Path) -> None:
    (bundle / "config.json").unlink()


def _lead_out(bundle: Path) -> None:
    outside = bundle.parent / "secret"
    outside.write_bytes(WEIGHTS)
    (bundle / "model.safetensors").unlink()
    (bundle / "model.safetensors").symlink_to(outside)


def _name_outside(bundle: Path) -> None:
    (bundle.parent / "secret").write_bytes(b"x")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def _spoil(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_swap, "'model.safetensors' was changed: its sha256"),
        (_grow, "'config.json' was changed: it has 3 bytes, and manifest.json says 2"),
        (_drop, "'config.json' is missing"),
        (_lead_out, "'model.safetensors' is a link that leads out of the bundle"),
        (_name_outside, "manifest.json names '../secret'"),
        (_spoil, "manifest.json is damaged"),
    ],
)
def test_a_bundle_that_is_not_as_its_manifest_says_is_not_pushed(bundle: Path, s3_bucket: str, change, words: str) -> None:
    import boto3

    change(bundle)
    code, told, said = push(bundle, f"s3://{s3_bucket}/small")
    assert (code, told, words in said) == (1, "", True), said
    assert list(boto3.resource("s3").Bucket(s3_bucket).objects.all()) == []


def _sign(bundle: Path, folder: Path) -> Path:
    private, public = write_key(folder)
    spec = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
    signer = BundleSigner(Settings(data_dir=folder / "data", signing_key=private))
    signer.sign(bundle, Claim(job_id="job_1", fence=2, attempt=1, spec=spec), started=time.time() - 5)
    return public


def test_a_signed_bundle_is_pushed_with_its_signature_and_proven_where_a_key_is_given(
    bundle: Path, s3_bucket: str, tmp_path: Path
) -> None:
    key = _sign(bundle, tmp_path)
    code, told, said = push(bundle, f"s3://{s3_bucket}/small", "--key", key, "--json")
    assert code == 0, said
    assert json.loads(told)["proven"]
    assert {"model.sig", "provenance.json"} <= set(json.loads(told)["sent"])
    code, _told, said = push(bundle, f"s3://{s3_bucket}/small")
    assert (code, "--key FILE proves whose it is" in said) == (0, True), said
    (tmp_path / "others").mkdir()
    code, _told, said = push(bundle, f"s3://{s3_bucket}/small", "--key", write_key(tmp_path / "others")[1])
    assert (code, "signed by another key" in said) == (1, True), said
    (bundle / "added.txt").write_text("x")
    code, _told, said = push(bundle, f"s3://{s3_bucket}/other")
    assert (code, "not signed, and there all the same: 'added.txt'" in said) == (1, True), said


def test_an_unsigned_bundle_is_refused_where_a_key_is_given_and_unnamed_files_stay_here(
    bundle: Path, s3_bucket: str, tmp_path: Path
) -> None:
    code, _told, said = push(bundle, f"s3://{s3_bucket}/small", "--key", write_key(tmp_path)[1])
    assert (code, "not signed" in said, "coppice run signs none" in said) == (1, True, True), said
    (bundle / "notes.txt").write_text("my own")
    code, told, said = push(bundle, f"s3://{s3_bucket}/small", "--json")
    assert (code, "notes.txt" in json.loads(told)["sent"]) == (0, False)
    assert "not sent, since the manifest does not name them: 'notes.txt'" in said


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_an_archive_is_pushed_as_its_folder(bundle: Path, s3_bucket: str, tmp_path: Path, form: str) -> None:
    archive = tmp_path / f"packed.{form}"
    if form == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name in whole(bundle):
                packed.write(bundle / name, name)
    else:
        with tarfile.open(archive, "w:gz" if form.endswith("gz") else "w") as packed:
            packed.add(bundle, "some-name")
    code, told, said = push(archive, f"s3://{s3_bucket}/small", "--json")
    assert code == 0, said
    assert sorted(json.loads(told)["sent"]) == sorted(whole(bundle))


def test_an_archive_that_would_write_elsewhere_is_refused(bundle: Path, tmp_path: Path) -> None:
    outward, linked = tmp_path / "outward.tar", tmp_path / "linked.tar"
    with tarfile.open(outward, "w") as packed:
        packed.add(bundle / "config.json", "../config.json")
    with tarfile.open(linked, "w") as packed:
        entry = tarfile.TarInfo("model.safetensors")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(entry)
    for archive, words in ((outward, "would lie outside of the bundle"), (linked, "is a link")):
        code, _told, said = push(archive, "s3://bucket/small")
        assert (code, words in said) == (1, True), said


def test_a_dry_run_lists_and_sends_nothing(bundle: Path) -> None:
    code, told, said = push(bundle, "s3://no-such-bucket/small", "--dry-run")
    assert code == 0, said
    assert f"7 files, 300.9 kB, less what is there already; sha256:{digest_of(bundle)}" in told
    code, told, said = push(bundle, "s3://no-such-bucket/small", "--dry-run", "--json")
    assert {file["path"] for file in json.loads(told)["files"]} == set(whole(bundle))
    assert "unsigned" in json.loads(told)["signature"]


@pytest.mark.parametrize(
    ("to", "more", "branch", "seen"),
    [
        ("hf://me/small", (), "main", "private by default"),
        ("hf://me/small@half", ("--public",), "half", "public"),
        ("hf://me/small", ("--private",), "main", "private"),
    ],
)
def test_a_dry_run_to_the_hub_says_who_would_see_which_branch(
    bundle: Path, to: str, more: tuple[str, ...], branch: str, seen: str
) -> None:
    code, told, said = push(bundle, to, "--dry-run", *more)
    assert code == 0, said
    lines = told.splitlines()
    assert lines[-3:] == [
        "signature: unsigned",
        f"branch: {branch}",
        f"visibility: {seen}, where this push makes the repository",
    ]


def test_a_bundle_is_not_pushed_for_all_and_for_few_at_once(bundle: Path) -> None:
    code, told, said = push(bundle, "hf://me/small", "--public", "--private", "--dry-run")
    assert (code, told, "--public and --private exclude each other" in said) == (2, "", True), said


@pytest.mark.parametrize(
    ("to", "more", "words"),
    [
        ("me/small", (), "did you mean hf://me/small?"),
        (
            "https://huggingface.co/me/small",
            (),
            "is a page of the Hub, and http(s):// is for Coppice services; did you mean hf://me/small?",
        ),
        ("https://HF.co/me/small/tree/half", ("--dry-run",), "did you mean hf://me/small@half?"),
        ("https://huggingface.co", (), "did you mean hf://ORG/NAME?"),
        ("ftp://host/x", (), "nothing is pushed to 'ftp'://"),
        ("hf://small", (), "hf:// is followed by ORG/NAME"),
        ("hf://me/small@a", ("--revision", "b"), "the revision is given twice"),
        ("s3://models", (), "give a prefix, too"),
        ("s3://models/a/../b", (), "the prefix must be of names"),
        ("oci://ghcr.io/me/Small:1", (), "oci:// is followed by REGISTRY/NAME:TAG"),
        ("s3://models/small", ("--revision", "b"), "--revision is of hf:// alone"),
        ("s3://models/small", ("--public",), "--public and --private are for hf:// alone"),
    ],
)
def test_a_destination_that_is_none_is_told_what_would_be_one(bundle: Path, to: str, more: tuple[str, ...], words: str) -> None:
    code, told, said = push(bundle, to, *more)
    assert (code, told, words in said) == (2, "", True), said


def test_a_path_without_a_bundle_is_told(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"no archive")
    for path, words in (
        (tmp_path / "nowhere", "there is no folder or archive"),
        (tmp_path, "is no bundle: it has no manifest.json"),
        (tmp_path / "file.bin", "give its folder, or an archive of it"),
    ):
        code, _told, said = push(path, "s3://models/small")
        assert (code, words in said) == (2, True), said
