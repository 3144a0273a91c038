"""The manifests for scaling out: what Kubernetes and KEDA know, queues and metrics that there are, sizes that go together."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from app.api import families
from app.jobs.needs import Abilities, Needs
from app.jobs.statistics import QueueState
from app.settings import Settings

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes-scaled"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OWN = [name for name in KUSTOMIZATION["resources"] if not name.startswith("..")]
DOCUMENTS = [document for name in OWN for document in yaml.safe_load_all((FOLDER / name).read_text())]
BUILT_IN = [document for document in DOCUMENTS if document["kind"] != "ScaledObject"]
(SCALED,) = (document for document in DOCUMENTS if document["kind"] == "ScaledObject")
PATCHES: dict[str, list[Any]] = {
    patch["path"]: list(yaml.safe_load_all((FOLDER / patch["path"]).read_text())) for patch in KUSTOMIZATION["patches"]
}

# What KEDA's documentation says of the fields that are used here; anything else is a mistake.
_COUNT = {"type": "integer", "minimum": 0}
_POLICY = {
    "type": "object",
    "properties": {
        "type": {"enum": ["Pods", "Percent"]},
        "value": _COUNT,
        "periodSeconds": {"type": "integer", "maximum": 1800},
    },
    "required": ["type", "value", "periodSeconds"],
    "additionalProperties": False,
}
_RULES = {
    "type": "object",
    "properties": {
        "stabilizationWindowSeconds": {"type": "integer", "minimum": 0, "maximum": 3600},
        "policies": {"type": "array", "items": _POLICY, "minItems": 1},
    },
    "additionalProperties": False,
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_PROMETHEUS = _object(
    serverAddress={"type": "string", "pattern": "^https?://"},
    query={"type": "string"},
    threshold={"type": "string", "pattern": r"^\d+(\.\d+)?$"},
    ignoreNullValues={"enum": ["true", "false"]},
)
SCHEMA = _object(
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=_object(name={"type": "string"}),
    spec=_object(
        scaleTargetRef=_object(name={"type": "string"}),
        minReplicaCount=_COUNT,
        maxReplicaCount={"type": "integer", "minimum": 1},
        pollingInterval={"type": "integer", "minimum": 1},
        cooldownPeriod=_COUNT,
        advanced=_object(horizontalPodAutoscalerConfig=_object(behavior=_object(scaleDown=_RULES))),
        triggers={"type": "array", "minItems": 1, "items": _object(type={"const": "prometheus"}, metadata=_PROMETHEUS)},
    ),
)


@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
@pytest.mark.parametrize("document", BUILT_IN, ids=[f"{found['kind']}-{found['metadata']['name']}" for found in BUILT_IN])
def test_every_document_fits_the_schema(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_scaled_object_fits_and_its_check_can_fail() -> None:
    jsonschema.validate(SCALED, SCHEMA)
    broken = SCALED | {"spec": SCALED["spec"] | {"maxReplicas": 3}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)
    base = yaml.safe_load((FOLDER.parent / "kubernetes" / "worker.yaml").read_text())
    assert SCALED["spec"]["scaleTargetRef"]["name"] == base["metadata"]["name"]
    assert base["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > Settings().kill_grace_s


def test_the_folder_has_what_is_named_and_patches_hit_what_is_there() -> None:
    assert {*OWN, *PATCHES, "kustomization.yaml"} == {path.name for path in FOLDER.iterdir()}
    base = FOLDER.parent / "kubernetes"
    there = {
        (found["kind"], found["metadata"]["name"]): found
        for path in base.glob("*.yaml")
        for found in yaml.safe_load_all(path.read_text())
        if "metadata" in found
    }
    for patch in KUSTOMIZATION["patches"]:
        targets = [patch["target"]] if "target" in patch else PATCHES[patch["path"]]
        for target in targets:
            assert (target["kind"], target.get("name") or target["metadata"]["name"]) in there, target
    for changed in PATCHES["uploads.patch.yaml"][2:]:
        own, pod = (
            changed["spec"]["template"]["spec"],
            there["Deployment", changed["metadata"]["name"]]["spec"]["template"]["spec"],
        )
        assert own["containers"][0]["name"] == pod["containers"][0]["name"]
        assert {gone["mountPath"] for gone in own["containers"][0]["volumeMounts"]} <= {
            mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]
        }
        assert {gone["name"] for gone in own["volumes"]} <= {volume["name"] for volume in pod["volumes"]}
    assert "replicas" in there["Deployment", "coppice-worker"]["spec"], "else the patch that removes it fails"
    given = PATCHES["connections.patch.yaml"][0]["data"] | PATCHES["uploads.patch.yaml"][0]["data"]
    assert {name.removeprefix("COPPICE_").lower() for name in given} <= set(Settings.model_fields)


def test_workers_are_counted_by_the_queues_that_they_serve_and_the_metric_exists(tmp_path: Path) -> None:
    (trigger,) = SCALED["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    name, pattern = re.search(r'\((coppice_\w+)\{queue=~"([^"]+)"\}\)', query).groups()
    state = QueueState(0.0, {}, 0.0, 0, 0, {("cuda+a100", "waiting"): 3, ("any", "running"): 1})
    found = {metric.name: metric for metric in families.of_queue(state)}[name]
    assert {(sample.labels["queue"], sample.labels["state"], sample.value) for sample in found.samples} == {
        ("cuda+a100", "waiting", 3),
        ("any", "running", 1),
    }
    worker = Abilities(device="cuda", tags=("a100",))
    for queue in ("any", "cuda", "cuda+a100", "cpu"):
        assert bool(re.fullmatch(pattern, queue)) == worker.serves_queue(queue), queue
        assert Needs.of(queue, None).queue == queue
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: tests/install_servers.sh installs it")
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [{"record": "x", "expr": query}]}]}))
    subprocess.run([promtool, "check", "rules", str(rules)], check=True, capture_output=True)


def test_the_ingress_keeps_nothing_back_and_limits_no_upload() -> None:
    (ingress,) = (document for document in DOCUMENTS if document["kind"] == "Ingress")
    said = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert (said["proxy-buffering"], said["proxy-request-buffering"], said["proxy-body-size"]) == ("off", "off", "0")
    hosts = {host for entry in ingress["spec"]["tls"] for host in entry["hosts"]}
    assert {rule["host"] for rule in ingress["spec"]["rules"]} == hosts
    api = list(yaml.safe_load_all((FOLDER.parent / "kubernetes" / "api.yaml").read_text()))
    (service,) = (document for document in api if document["kind"] == "Service")
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            assert path["backend"]["service"]["name"] == service["metadata"]["name"]
            assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}


def test_pgbouncer_is_in_the_mode_that_the_service_is_told_of() -> None:
    (example,) = (document for document in DOCUMENTS if document["metadata"]["name"] == "pgbouncer-example")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(example["data"]["pgbouncer.ini"])
    assert settings["pgbouncer"]["pool_mode"] == "transaction"
    assert PATCHES["connections.patch.yaml"][0]["data"]["COPPICE_DATABASE_POOLER"] == "true"
    (pods,) = (document for document in DOCUMENTS if document["kind"] == "Deployment")
    assert pods["spec"]["replicas"] * int(settings["pgbouncer"]["default_pool_size"]) < 100, "max_connections by default"
