import base64
import hashlib

import pytest

from app.jobs.records import JobError
from tests.contract.conftest import FILES

MODEL = FILES["model.safetensors"]
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def files(api):
    """Address of a finished job's files."""
    job_id = api.submit()
    api.succeed()
    return f"/v1/jobs/{job_id}/artifacts"


def test_the_list_says_what_the_files_are(api, files):
    data = {item["path"]: item for item in api.client.get(files).json()["data"]}
    assert data["model.safetensors"]["size"] == len(MODEL)
    assert data["model.safetensors"]["sha256"] == DIGEST
    for path, content in FILES.items():
        assert api.client.get(data[path]["url"]).content == content


def test_a_download_can_be_verified(api, files):
    response = api.client.get(f"{files}/model.safetensors")
    assert response.content == MODEL
    assert response.headers["etag"] == f'"{DIGEST}"'
    assert response.headers["repr-digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(DIGEST)).decode()}:"
    assert response.headers["content-length"] == str(len(MODEL))
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, len(MODEL)),
        ("bytes=-50", len(MODEL) - 50, len(MODEL)),
        (f"bytes=5-{10**9}", 5, len(MODEL)),
        (f"bytes=-{10**9}", 0, len(MODEL)),
    ],
)
def test_ranges(api, files, header, start, stop):
    response = api.client.get(f"{files}/model.safetensors", headers={"Range": header})
    assert response.status_code == 206
    assert response.content == MODEL[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(MODEL)}"


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "lines=0-1", "bytes=9-3", "bytes=-", "nonsense"])
def test_ranges_that_are_not_understood_get_the_whole_file(api, files, header):
    response = api.client.get(f"{files}/model.safetensors", headers={"Range": header})
    assert (response.status_code, response.content) == (200, MODEL)


@pytest.mark.parametrize(("path", "header"), [("model.safetensors", f"bytes={len(MODEL)}-"), ("empty.txt", "bytes=0-")])
def test_ranges_outside_the_file_are_refused(api, files, path, header):
    response = api.client.get(f"{files}/{path}", headers={"Range": header})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(FILES[path])}"
    assert response.json()["code"] == "range_not_satisfiable"


def test_if_range_resumes_only_the_same_file(api, files):
    url = f"{files}/model.safetensors"
    same = api.client.get(url, headers={"Range": "bytes=10-", "If-Range": f'"{DIGEST}"'})
    assert (same.status_code, same.content) == (206, MODEL[10:])
    other = api.client.get(url, headers={"Range": "bytes=10-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, MODEL)


def test_unchanged_files_are_not_sent_again(api, files):
    response = api.client.get(f"{files}/model.safetensors", headers={"If-None-Match": f'"{DIGEST}"'})
    assert (response.status_code, response.content) == (304, b"")


def test_head_says_what_get_would(api, files):
    head = api.client.head(f"{files}/model.safetensors")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(MODEL))
    assert head.headers["etag"] == f'"{DIGEST}"'
    ranged = api.client.head(f"{files}/model.safetensors", headers={"Range": "bytes=0-9"})
    assert (ranged.status_code, ranged.headers["content-length"]) == (200, str(len(MODEL)))


@pytest.mark.parametrize(
    "path", ["nothing", "../../../coppice.db", "%2e%2e/%2e%2e/coppice.db", "..%2f..%2f..%2fcoppice.db", "/etc/passwd", "a%00b"]
)
def test_nothing_else_can_be_reached(api, files, path):
    response = api.client.get(f"{files}/{path}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_a_file_that_the_store_has_lost_is_a_problem(api, files):
    job_id = files.split("/")[3]
    api.store.delete_prefix(f"jobs/{job_id}")
    response = api.client.get(f"{files}/model.safetensors")
    assert (response.status_code, response.json()["code"]) == (404, "artifact_gone")


def test_the_best_candidate_of_a_failed_job_can_be_downloaded(api):
    job_id = api.submit()
    api.fail(JobError("target_missed", "the written model keeps too much"), with_files=True)
    assert api.client.get(f"/v1/jobs/{job_id}").json()["status"] == "failed"
    assert api.client.get(f"/v1/jobs/{job_id}/artifacts/model.safetensors").content == MODEL
    assert api.client.get(f"/v1/jobs/{job_id}/report").json()["target"]["requested"] == 0.5


def test_unfinished_jobs_have_no_files(api):
    job_id = api.submit()
    assert api.client.get(f"/v1/jobs/{job_id}/artifacts").json()["data"] == []
