"""The manifests are what Kubernetes knows (its own schemas, strictly), and say what the code understands."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.settings import Settings

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
FILES = [*KUSTOMIZATION["resources"], "secret.example.yaml"]
DOCUMENTS = [(name, document) for name in FILES for document in yaml.safe_load_all((FOLDER / name).read_text())]
PODS = [document["spec"]["template"]["spec"] for _name, document in DOCUMENTS if document["kind"] in ("Deployment", "Job")]


@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
@pytest.mark.parametrize(("name", "document"), DOCUMENTS, ids=[f"{name}-{document['kind']}" for name, document in DOCUMENTS])
def test_every_document_fits_the_schema(name: str, document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_check_can_fail() -> None:
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.34", strict=True)


def test_kustomize_has_every_file_and_an_image_for_every_container() -> None:
    assert set(KUSTOMIZATION["resources"]) | {"kustomization.yaml", "secret.example.yaml"} == {
        path.name for path in FOLDER.iterdir()
    }
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {pod["containers"][0]["image"] for pod in PODS}


def test_every_variable_is_a_setting_and_every_command_exists() -> None:
    known = {f"COPPICE_{field.upper()}" for field in Settings.model_fields}
    data = [document.get("data", {}) | document.get("stringData", {}) for _name, document in DOCUMENTS]
    given = {name for found in data for name in found if name.startswith("COPPICE_")}
    given |= {variable["name"] for pod in PODS for variable in pod["containers"][0].get("env", [])}
    assert given <= known
    scripts = {script.name for script in entry_points(group="console_scripts")}
    assert all(pod["containers"][0]["command"][0] in scripts for pod in PODS)


def test_pods_run_as_the_image_s_user_without_rights_and_write_to_volumes_only() -> None:
    for pod in PODS:
        assert pod["securityContext"]["runAsUser"] == 10001
        own = pod["containers"][0]["securityContext"]
        assert own["readOnlyRootFilesystem"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }
        assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": "coppice"}}, {"secretRef": {"name": "coppice"}}]
