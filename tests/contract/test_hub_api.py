import hashlib

import pytest

from app.jobs.records import JobError
from tests.contract.conftest import FILES
from tests.contract.problems import assert_problem

MODEL = FILES["model.safetensors"]
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def repo(api):
    api.submit()
    return f"jobs/{api.succeed()}"


def test_a_file_is_named_by_content_and_commit(api, repo):
    response = api.client.get(f"/hub/{repo}/resolve/main/model.safetensors")
    assert response.content == MODEL
    assert response.headers["etag"] == response.headers["x-linked-etag"] == f'"{DIGEST}"'
    commit = response.headers["x-repo-commit"]
    assert len(commit) == 40
    assert api.client.get(f"/hub/{repo}/resolve/{commit}/model.safetensors").content == MODEL
    head = api.client.head(f"/hub/{repo}/resolve/main/model.safetensors")
    assert (head.headers["content-length"], head.headers["x-repo-commit"], head.content) == (str(len(MODEL)), commit, b"")


def test_downloads_resume_and_caches_hold(api, repo):
    url = f"/hub/{repo}/resolve/main/model.safetensors"
    part = api.client.get(url, headers={"Range": "bytes=100-"})
    assert (part.status_code, part.content) == (206, MODEL[100:])
    same = api.client.get(url, headers={"If-None-Match": f'"{DIGEST}"'})
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["x-repo-commit"]


def test_the_repository_is_described(api, repo):
    info = api.client.get(f"/hub/api/models/{repo}").json()
    assert (info["id"], info["modelId"], info["private"]) == (repo, repo, False)
    assert {file["rfilename"] for file in info["siblings"]} == set(FILES)
    assert api.client.get(f"/hub/api/models/{repo}/revision/{info['sha']}").json() == info
    assert info["pipeline_tag"] == "text-classification"


def test_the_tree_is_listed_as_git_would_keep_it(api, repo):
    url = f"/hub/api/models/{repo}/tree/main"
    top = {entry["path"]: entry for entry in api.client.get(url).json()}
    assert {path: entry["type"] for path, entry in top.items()} == {
        "1_Pooling": "directory",
        "empty.txt": "file",
        "model.safetensors": "file",
    }
    assert top["model.safetensors"]["lfs"]["oid"] == DIGEST
    everything = {entry["path"] for entry in api.client.get(url, params={"recursive": True}).json()}
    assert everything == {*FILES, "1_Pooling"}
    inside = api.client.get(f"{url}/1_Pooling").json()
    assert [entry["path"] for entry in inside] == ["1_Pooling/config.json"]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("{repo}/resolve/main/nothing", "EntryNotFound"),
        ("{repo}/resolve/main/..%2f..%2fcoppice.db", "EntryNotFound"),
        ("{repo}/resolve/main/a%00b", "EntryNotFound"),
        ("{repo}/resolve/v2/model.safetensors", "RevisionNotFound"),
        ("api/models/{repo}/revision/v2", "RevisionNotFound"),
        ("api/models/{repo}/tree/v2", "RevisionNotFound"),
        ("api/models/{repo}/tree/main/nothing", "EntryNotFound"),
        ("api/models/jobs/job_unknown", "RepoNotFound"),
        ("api/models/jobs/job_%00", "RepoNotFound"),
        ("api/models/bert-base-uncased", "RepoNotFound"),
        ("org/name/resolve/main/config.json", "RepoNotFound"),
        ("datasets/glue/resolve/main/README.md", "RepoNotFound"),
    ],
)
def test_what_is_missing_is_told_apart(api, repo, address, code):
    url = f"/hub/{address.format(repo=repo)}"
    headers = {"Authorization": "Bearer hf_token"}
    response = api.client.get(url, headers=headers)
    assert response.headers["x-error-code"] == code
    assert_problem(
        response,
        404,
        {"EntryNotFound": "not_found", "RevisionNotFound": "revision_not_found"}.get(code, "repository_not_found"),
    )
    assert ("x-repo-commit" in response.headers) == (code == "EntryNotFound")
    assert api.client.head(url, headers=headers).status_code in (404, 405)
    assert api.client.get(url).status_code == (401 if code == "RepoNotFound" else 404)


def test_only_succeeded_jobs_are_repositories(api):
    queued = api.submit()
    assert api.client.get(f"/hub/api/models/jobs/{queued}").headers["x-error-code"] == "RepoNotFound"
    api.fail(JobError("target_missed", "too large"), with_files=True)
    assert api.client.get(f"/hub/jobs/{queued}/resolve/main/model.safetensors").headers["x-error-code"] == "RepoNotFound"


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def test_browsers_get_the_report_as_a_page(api, monkeypatch):
    monkeypatch.setitem(FILES, "report.html", b"<!doctype html><title>r</title>")
    job_id = api.submit()
    api.succeed()
    url = f"/v1/jobs/{job_id}/report"
    page = api.client.get(url, headers={"Accept": BROWSER})
    assert page.text == "<!doctype html><title>r</title>"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.headers["vary"] == "Accept"
    again = api.client.get(url, headers={"Accept": BROWSER, "If-None-Match": page.headers["etag"]})
    assert again.status_code == 304
    # The same file as an artifact is something to save: it must not run as a page of this site.
    assert api.client.get(f"/v1/jobs/{job_id}/artifacts/report.html").headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0", "text/html;q=x"]
)
def test_programs_get_the_report_as_json(api_on_sqlite, accept):
    job_id = api_on_sqlite.submit()
    api_on_sqlite.succeed()
    response = api_on_sqlite.client.get(f"/v1/jobs/{job_id}/report", headers={"Accept": accept})
    assert response.json()["target"]["requested"] == 0.5


def test_a_page_that_was_never_made_is_a_problem(api_on_sqlite):
    job_id = api_on_sqlite.submit()
    address = f"/v1/jobs/{job_id}/report"
    assert_problem(api_on_sqlite.client.get(address, headers={"Accept": BROWSER}), 404, "report_not_ready")
    api_on_sqlite.succeed()
    assert_problem(api_on_sqlite.client.get(address, headers={"Accept": BROWSER}), 404, "not_found")
