"""docker-compose.yml and Dockerfile say what the code understands; `tests/integration/test_compose.py` runs the commands."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from app.brokers import with_tls
from app.settings import Settings
from tests.locks import read

ROOT = Path(__file__).resolve().parents[2]
FILES = ("docker-compose.yml", "docker-compose.tls.yml", "docker-compose.signing.yml")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "api", "worker", "worker-gpu")
MONITORING = ("prometheus", "grafana", "flower")
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {"api", "migrate", "postgres", "redis", "worker", "worker-gpu", *MONITORING}
    optional = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert optional == {"worker-gpu": ["gpu"]} | {name: ["monitoring"] for name in MONITORING}


@pytest.mark.parametrize("name", FILES)
def test_every_file_fits_the_schema_of_compose(name: str) -> None:
    done = _checked(ROOT / name)
    assert done.returncode == 0, done.stdout


def test_the_check_of_the_schema_can_fail(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("services: {redis: {imgae: redis}}")
    assert _checked(tmp_path / "x.yml").returncode == 1


@pytest.mark.parametrize("name", FILES[1:])
def test_what_is_laid_over_changes_services_that_there_are_and_sets_settings(name: str) -> None:
    over = yaml.safe_load((ROOT / name).read_text())
    known = {f"COPPICE_{field.upper()}" for field in Settings.model_fields} | {"CELERY_BROKER_URL"}
    for service, changes in over["services"].items():
        assert set(changes) <= {"environment", "volumes", "secrets", "command", "healthcheck"}
        assert service in SERVICES
        assert set(changes.get("environment", {})) <= known
        assert set(changes.get("secrets", [])) <= set(over.get("secrets", {}))


def test_the_private_key_is_the_workers_alone() -> None:
    over = yaml.safe_load((ROOT / "docker-compose.signing.yml").read_text())
    holders = {name for name, service in over["services"].items() if "signing-key" in service["secrets"]}
    assert holders == {"worker", "worker-gpu"}
    assert set(over["services"]["api"]["environment"]) == {"COPPICE_SIGNING_PUBLIC_KEYS"}


def test_every_part_reaches_redis_by_tls_where_it_has_that() -> None:
    over = yaml.safe_load((ROOT / "docker-compose.tls.yml").read_text())["services"]
    assert set(over) == {"redis", "flower", *OURS}
    for name in ("flower", *OURS):
        (url,) = over[name]["environment"].values()
        assert url.startswith("rediss://coppice:${REDIS_PASSWORD:?")
        assert with_tls(url).endswith("ssl_cert_reqs=required")
        (volume,) = over[name]["volumes"]
        assert volume.rsplit(":", 2)[1] in url


def _checked(path: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", OURS)
def test_commands_exist(name: str) -> None:
    from coppice.cli import app

    program, *arguments = SERVICES[name]["command"]
    assert program in {script.name for script in entry_points(group="console_scripts")}
    if program == "coppice":
        assert arguments[0] in typer.main.get_command(app).commands
    else:
        module, factory = arguments[0].split(":")
        assert callable(getattr(__import__(module, fromlist=[factory]), factory))


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    known = {f"COPPICE_{field.upper()}" for field in Settings.model_fields}
    given = set(SERVICES[name]["environment"])
    assert given <= known
    assert {"COPPICE_DATABASE_URL", "COPPICE_BROKER_URL", "COPPICE_ARTIFACTS_DIR"} <= given


def test_every_part_of_one_deployment_shares_database_broker_and_store() -> None:
    for variable in ("COPPICE_DATABASE_URL", "COPPICE_BROKER_URL", "COPPICE_ARTIFACTS_DIR", "COPPICE_ALLOWED_ROOTS"):
        assert len({SERVICES[name]["environment"][variable] for name in OURS}) == 1
    for name in ("api", "worker", "worker-gpu"):
        mounts = dict(reversed(volume.removesuffix(":ro").rsplit(":", 1)) for volume in SERVICES[name]["volumes"])
        assert mounts[SERVICES[name]["environment"]["COPPICE_ARTIFACTS_DIR"]] == "artifacts"
        assert SERVICES[name]["environment"]["COPPICE_ALLOWED_ROOTS"] in mounts


def test_there_is_no_default_secret_and_nothing_but_the_api_on_loopback_is_published() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    passwords = re.findall(r"\$\{(\w*PASSWORD\w*)([^}]*)\}", text)
    assert {name for name, _ in passwords} == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert all(rest.startswith(":?") for _, rest in passwords)
    for name in OURS:
        assert SERVICES[name]["environment"]["COPPICE_AUTH"] == "true"
        assert SERVICES[name]["environment"]["COPPICE_SECRET"].startswith("${COPPICE_SECRET:?")
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", *MONITORING}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    for name in ("postgres", "redis"):
        assert [COMPOSE["networks"][network] for network in SERVICES[name]["networks"]] == [{"internal": True}]


def test_services_start_after_what_they_need() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("api", "worker", "worker-gpu"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    for name in ("postgres", "redis", "api"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES["migrate"]["restart"] == "no", "a migration that restarts never counts as completed"


def test_references_resolve() -> None:
    volumes = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    named = {volume for volume in volumes if not volume.startswith(("$", ".", "/"))}
    assert named == set(COMPOSE["volumes"])
    mounted = [volume.split(":")[0] for volume in volumes if volume.startswith("./")]
    assert mounted
    assert [path for path in mounted if not (ROOT / path).exists()] == []
    secrets = {secret["source"] for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert secrets == set(COMPOSE["secrets"])
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    for name in (*OURS, "flower"):
        assert SERVICES[name]["build"]["target"] in stages
        assert set(SERVICES[name]["depends_on"]) <= set(SERVICES)


def test_what_prometheus_scrapes_is_what_services_expose() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    addresses = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    port = SERVICES["worker"]["environment"]["COPPICE_WORKER_METRICS_PORT"]
    assert addresses == {"api:8000", f"worker:{port}"}
    tokens = {job["authorization"]["credentials_file"] for job in jobs}
    assert {secret["target"] for secret in SERVICES["prometheus"]["secrets"]} == {f"/etc/prometheus/{name}" for name in tokens}


def test_grafana_finds_its_data_source_and_its_dashboard() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    source = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == f"http://prometheus:{SERVICES['prometheus']['ports'][0].rsplit(':', 1)[1]}"
    dashboards = yaml.safe_load((folder / "dashboards/coppice.yml").read_text())["providers"][0]["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert f"./deploy/grafana/coppice.json:{home}:ro" in SERVICES["grafana"]["volumes"]
    assert home.startswith(dashboards)


def test_the_api_image_has_no_torch() -> None:
    stage = _stage("build-api")
    assert re.findall(r"--requirement (\S+)", stage) == ["deploy/requirements/api.txt"]
    assert "torch" not in {pin.name for pin in read(ROOT / "deploy/requirements/api.txt")}
    assert "COPY --from=build-api" in _stage("api")


def test_images_install_nothing_whose_hash_is_not_known() -> None:
    installs = re.findall(r"pip install (.+?)(?: \\$|$|;)", DOCKERFILE, re.MULTILINE)
    assert len(installs) == 9
    for options in installs:
        locked = re.search(r"--no-deps --require-hashes --requirement (\S+?\.txt)( && pip check)?$", options)
        ours = re.fullmatch(r"--no-deps --no-index /dists/\*\.whl", options)
        assert locked or ours, options
        assert locked is None or (ROOT / locked[1]).is_file()
    assert re.findall(r"pip wheel (.+)$", DOCKERFILE, re.MULTILINE) == [
        "--no-build-isolation --no-deps --wheel-dir /dists . ./deploy/server"
    ]


def test_images_run_as_nobody_in_particular() -> None:
    bases = {"api": "runtime", "worker": "runtime-worker", "worker-gpu": "runtime-worker"}
    for name, base in bases.items():
        assert re.search(r"^USER coppice$", _stage(base), re.MULTILINE)
        assert f"FROM {base} AS {name}" in DOCKERFILE
        assert not re.search(r"^USER", _stage(name), re.MULTILINE)


def test_what_images_copy_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]}
    assert copied == kept
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= copied


def _stage(name: str) -> str:
    start = re.search(rf"^FROM \S+ AS {re.escape(name)}$", DOCKERFILE, re.MULTILINE)
    assert start is not None
    rest = DOCKERFILE[start.end() :]
    end = re.search(r"^FROM ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest
