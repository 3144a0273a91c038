"""What a release does: workflows that fit their schema and ask for little, images by digest, bills of materials."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import sbom
from tests.locks import FOLDER, read

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
READ: dict[str, dict[str, Any]] = {path.stem: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
JOBS = [(name, job, described) for name, workflow in READ.items() for job, described in workflow["jobs"].items()]
STEPS = [(f"{name}-{job}", step) for name, job, described in JOBS for step in described["steps"]]
DIGEST = "sha256:" + "0123456789abcdef" * 4


def _checked(schema: str, *paths: Path) -> int:
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    return subprocess.run(line, capture_output=True, text=True, check=False).returncode


@pytest.mark.long
def test_workflows_fit_their_schema_and_the_check_can_fail(tmp_path: Path) -> None:
    assert {path.stem for path in WORKFLOWS} == {"ci", "release"}
    assert _checked("vendor.github-workflows", *WORKFLOWS) == 0
    assert _checked("vendor.dependabot", ROOT / ".github" / "dependabot.yml") == 0
    (tmp_path / "broken.yml").write_text("{on: push, jobs: {check: {run-on: x, steps: []}}}")
    assert _checked("vendor.github-workflows", tmp_path / "broken.yml") == 1


def test_every_action_is_named_by_a_commit_and_one_version_of_each() -> None:
    commits: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for line in re.findall(r"uses: (.+)", path.read_text()):
            found = re.fullmatch(r"([\w\-]+/[\w\-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+", line)
            assert found is not None, line
            commits.setdefault(found[1], set()).add(found[2])
    assert commits
    assert all(len(found) == 1 for found in commits.values())


def test_jobs_may_only_read_but_for_what_each_does() -> None:
    assert all(workflow["permissions"] == {"contents": "read"} for workflow in READ.values())
    writes = {
        job: {scope for scope, access in described.get("permissions", {}).items() if access == "write"}
        for _name, job, described in JOBS
    }
    assert {job: scopes for job, scopes in writes.items() if scopes} == {
        "distributions": {"id-token", "attestations"},
        "images": {"packages", "id-token"},
        "release": {"contents"},
    }
    assert all("timeout-minutes" in described for _name, _job, described in JOBS)
    for _name, step in STEPS:
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize(("name", "step"), [(name, step) for name, step in STEPS if "run" in step])
def test_scripts_are_shell_and_nothing_is_pasted_into_them(name: str, step: dict[str, Any]) -> None:
    assert "${{" not in step["run"], f"{name}: hand it over by the environment"
    subprocess.run(["bash", "-n", "-c", step["run"]], check=True)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in re.findall(r"^make (.+)$", step["run"], re.MULTILINE):
        assert set(line.split()) <= targets


def test_images_are_those_of_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM runtime(?:-worker)? AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert set(READ["release"]["jobs"]["images"]["strategy"]["matrix"]["target"]) == stages


def test_bases_are_resolved_to_digests(tmp_path: Path) -> None:
    # There is no registry here: what is called docker answers as buildx does.
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$1 $2 $3 $5" = "buildx imagetools inspect --format" ] && echo "${{ANSWER-{DIGEST}}}"\n')
    docker.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = ["sh", str(ROOT / "deploy" / "resolve_images.sh")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    found = dict(line.split() for line in done.stdout.splitlines())
    python = (
        f"python:{re.search(r'^ARG PYTHON_VERSION=(.+)$', (ROOT / 'Dockerfile').read_text(), re.MULTILINE)[1]}-slim-bookworm"
    )
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    assert set(found) == {python, *(service["image"] for service in services if not service["image"].startswith("coppice-"))}
    assert found[python] == f"python@{DIGEST}"
    broken = subprocess.run(line, env=environment | {"ANSWER": "unauthorized"}, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert "no digest of" in broken.stderr


@pytest.mark.parametrize("name", sbom.BILLS)
def test_a_bill_of_materials_has_everything_with_its_hashes(name: str, tmp_path: Path) -> None:
    document = json.loads(sbom.write(name, tmp_path).read_text())
    described = document["metadata"]["component"]
    assert (described["name"], described["version"]) == (name, sbom.VERSION)
    pins = {pin.name: pin for pin in read(FOLDER / f"{sbom.BILLS[name][1]}.txt")}
    listed = {component["name"]: component for component in document["components"]}
    assert {found.lower().replace("_", "-").replace(".", "-") for found in listed} == {
        found.replace(".", "-") for found in pins
    }
    torch = listed["torch"]
    assert torch["purl"] == f"pkg:pypi/torch@{pins['torch'].version}"
    hashes = {entry["value"] for entry in torch["properties"] if entry["name"] == "coppice:accepted-file:sha256"}
    assert hashes == set(pins["torch"].hashes)
    assert "://" not in json.dumps([component.get("externalReferences") for component in listed.values()])


def test_the_check_of_a_bill_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "x.cdx.json"
    path.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "x"}]}))
    with pytest.raises(ValueError, match="no CycloneDX"):
        sbom.check(path)


def release_notes(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "deploy").mkdir(exist_ok=True)
    shutil.copy(ROOT / "deploy" / "release_notes.py", folder / "deploy")
    line = [sys.executable, str(folder / "deploy" / "release_notes.py"), *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path: Path) -> None:
    text = "# Changelog\n\n## Unreleased\n\n- new\n\n## 1.2.0 (2026-12-01)\n\n- one\n- two\n\n## 1.1.0\n\n- old\n"
    (tmp_path / "CHANGELOG.md").write_text(text)
    assert release_notes(tmp_path, "v1.2.0").stdout == "- one\n- two\n"
    assert release_notes(tmp_path, "v1.1.0").stdout == "- old\n"
    refused = release_notes(tmp_path, "v1.3.0")
    assert refused.returncode == 1
    assert "give what stands under Unreleased this name" in refused.stderr
