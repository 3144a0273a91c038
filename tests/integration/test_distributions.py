"""Both distributions, built and installed into environments in which there is nothing of ours but their files.

Twice: what `make test` runs takes the libraries from the development environment; `make test-dists` takes them from the
package registry, as users do, which takes minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx2
import pytest

from tests.servers import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
SERVER_PACKAGES = {"app", "worker", "migrations"}
OURS = re.compile(r"_*(editable\w*?_)?coppice|__editable__", re.IGNORECASE)
HEAVY = re.compile(r"torch|transformers|safetensors", re.IGNORECASE)
KINDS = ["borrowed", pytest.param("registry", marks=pytest.mark.registry)]

LOAD = """
import sys
import app, pruning_core
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, told = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], dtype="float32", output_loading_info=True)
assert not any(told.values()), told
logits = model(**AutoTokenizer.from_pretrained(sys.argv[1])("good", return_tensors="pt")).logits
print(app.OWNER, tuple(logits.shape), sum(p.numel() for p in model.parameters()))
"""


@dataclass(frozen=True)
class Built:
    """The files of both distributions."""

    client: Path
    server: Path
    folder: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build both, each wheel from its sdist."""
    folder = tmp_path_factory.mktemp("dist")
    for source in (ROOT, ROOT / "deploy" / "server"):
        line = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (client,), (server,) = folder.glob("coppice_prune-*.whl"), folder.glob("coppice_server-*.whl")
    return Built(client, server, folder)


class Environment:
    """A virtual environment of its own.

    Args:
        folder: Where to make it.
        kind: Whether libraries come from the development environment, or from the registry.
        without: Libraries that are not borrowed.
    """

    def __init__(self, folder: Path, kind: str, without: re.Pattern[str] | None = None) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.folder, self.kind = folder, kind
        self.python = folder / "bin" / "python"
        self.site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        self._borrowed = folder / "borrowed"
        if kind == "borrowed":
            self._borrowed.mkdir()
            (self.site / "borrowed.pth").write_text(f"{self._borrowed}\n")
            self.borrow(without)

    def borrow(self, without: re.Pattern[str] | None = None) -> None:
        """Take the libraries of the development environment, but nothing of ours."""
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            here = self._borrowed / entry.name
            if not OURS.match(entry.name) and not (without and without.match(entry.name)) and not here.is_symlink():
                here.symlink_to(entry)

    def install(self, *wheels: str | Path) -> None:
        """Install wheels, with their dependencies where those come from the registry."""
        line = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--disable-pip-version-check", "--quiet"]
        line += ["--no-deps", "--no-index"] if self.kind == "borrowed" else ["--constraint", str(ROOT / "constraints.txt")]
        done = subprocess.run([*line, *map(str, wheels)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def uninstall(self, name: str) -> None:
        """Uninstall a distribution."""
        line = [sys.executable, "-m", "pip", "--python", str(self.python), "uninstall", "--quiet", "--yes", name]
        subprocess.run(line, check=True, capture_output=True)

    def run(
        self, program: str, *arguments: str | Path, where: Path | None = None, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to the end, in its own folder unless said otherwise."""
        line = [str(self.folder / "bin" / program), *map(str, arguments)]
        return subprocess.run(
            line,
            cwd=where or self.folder,
            env=self.variables(changes),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def variables(self, changes: Mapping[str, str]) -> dict[str, str]:
        """Give the environment variables of its programs: none that would lead to the development environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COPPICE_", "PYTHON"))}
        return kept | {"HOME": str(self.folder), "COPPICE_DATA_DIR": str(self.folder / "data")} | changes


def test_no_file_is_in_both_and_the_client_s_has_no_common_names(built: Built) -> None:
    files = {wheel: set(zipfile.ZipFile(wheel).namelist()) for wheel in (built.client, built.server)}
    assert not files[built.client] & files[built.server]
    packages = {wheel: {name.split("/")[0] for name in names if ".dist-info/" not in name} for wheel, names in files.items()}
    assert packages == {built.client: {"coppice", "pruning_core"}, built.server: SERVER_PACKAGES}


def test_every_tracked_file_of_a_package_is_in_its_wheel_and_sdist(built: Built) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for packages, wheel in (({"coppice", "pruning_core"}, built.client), (SERVER_PACKAGES, built.server)):
        tracked = {name for name in listed if name.split("/")[0] in packages and (ROOT / name).exists()}
        inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        assert tracked - inside == set()
        stem = wheel.name.removesuffix("-py3-none-any.whl")
        with tarfile.open(built.folder / f"{stem}.tar.gz") as archive:
            assert tracked - {name.removeprefix(f"{stem}/") for name in archive.getnames()} == set()


def test_the_index_will_take_them(built: Built) -> None:
    line = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.folder.iterdir())]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_both_have_one_version_and_the_server_needs_the_very_same(built: Built) -> None:
    assert version("coppice-prune") == version("coppice-server")
    with zipfile.ZipFile(built.server) as wheel:
        metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    needed = {line for line in metadata.splitlines() if line.startswith("Requires-Dist: coppice-prune")}
    assert f"Requires-Dist: coppice-prune=={version('coppice-prune')}" in needed
    assert all(f"=={version('coppice-prune')}" in line for line in needed)


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_lives_beside_a_user_s_own_app(
    kind: str, built: Built, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    user = Environment(tmp_path / "user", kind, without=HEAVY)
    _own_package(user.site, "app")
    user.install(built.client)
    told = user.run("python", "-c", "import coppice, app; print(coppice.Client.__name__, app.OWNER)")
    assert told.stdout == "Client user\n", told.stderr
    assert user.run("coppice", "--version").stdout == f"coppice {version('coppice-prune')}\n"
    assert "Usage:" in user.run("coppice", "--help").stdout
    for command in (["serve"], ["worker"], ["migrate"], ["doctor"], ["keys", "list"]):
        assert "needs coppice-server, which wants an environment of its own" in _refused(user, "coppice", *command)
    job = ["--model", tiny_bert, "--task", "glue/sst2", "--data", tiny_sst2, "--macs-keep", "0.5", "--method", "magnitude"]
    job += ["--samples", "32", "--device", "cpu"]
    assert "pip install 'coppice-prune[prune]'" in _refused(user, "coppice", "run", *job, "--out", tmp_path / "none")
    assert "pip install 'coppice-prune[load]'" in _refused(user, "coppice", "expand", tmp_path, "--out", tmp_path / "none")

    if kind == "registry":
        user.install(f"coppice-prune[prune] @ {built.client.as_uri()}")
    else:
        user.borrow()
    done = user.run("coppice", "run", *job, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    told = user.run("python", "-c", LOAD, tmp_path / "bundle")
    assert told.stdout.startswith("user (1, 2) "), told.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_starts_in_an_environment_of_its_own(kind: str, built: Built, tmp_path: Path) -> None:
    own = Environment(tmp_path / "own", kind)
    if kind == "registry":
        own.install(built.client, f"coppice-server[worker] @ {built.server.as_uri()}")
    else:
        own.install(built.client, built.server)
    # Where its user happens to stand, there may be packages of the same names.
    where = tmp_path / "project"
    for name in SERVER_PACKAGES:
        _own_package(where, name)
    with _serving(own, where) as url:
        assert httpx2.get(f"{url}/healthz").json()["status"] == "ok"
        assert "<html" in httpx2.get(f"{url}/").text
        assert httpx2.get(f"{url}/static/style.css").status_code == 200
    found = own.run("coppice", "doctor", where=where)
    assert "computes on cpu" in re.sub(r"\W+", " ", found.stdout), found.stdout + found.stderr


def test_the_service_refuses_an_environment_that_it_shares_and_the_client_names_a_namesake(
    built: Built, tmp_path: Path
) -> None:
    shared = Environment(tmp_path / "shared", "borrowed", without=HEAVY)
    shared.install(built.client, built.server)
    assert "this command needs torch: pip install 'coppice-server[worker]'" in _refused(shared, "coppice", "serve")

    shared.install(_wheel(tmp_path, "mysite", "app/models.py"))
    says = "mysite 1.0 is installed here and has a package app, too; coppice-server wants an environment of its own"
    for command in (["coppice", "migrate"], ["python", "-m", "worker.main"]):
        assert says in _refused(shared, *command)
    assert says in _refused(shared, "python", "-m", "uvicorn", "app.main:create_app", "--factory", "--port", "0")
    shared.uninstall("mysite")
    assert shared.run("coppice", "migrate").returncode == 0

    (shared.site / "app" / "models.py").write_text("")
    assert "models.py is no file of coppice-server; coppice-server wants an environ" in _refused(shared, "coppice", "migrate")
    (shared.site / "app" / "models.py").unlink()

    _own_package(tmp_path / "path", "app")
    _own_package(tmp_path / "path", "migrations")
    assert "another package app" in _refused(shared, "coppice", "migrate", PYTHONPATH=str(tmp_path / "path"))
    shutil.rmtree(tmp_path / "path" / "app")
    assert "another package migrations" in _refused(shared, "coppice", "migrate", PYTHONPATH=str(tmp_path / "path"))

    shared.install(_wheel(tmp_path, "coppice", "coppice/scripts/__init__.py"))
    told = shared.run("coppice", "doctor", "--json")
    assert "note: coppice 1.0 is installed, too, and is not coppice-prune" in told.stderr
    assert "pip uninstall --yes coppice; pip install --force-reinstall" in told.stdout


@contextmanager
def _serving(environment: Environment, where: Path) -> Iterator[str]:
    log = environment.folder / "serve.log"
    with log.open("wb") as output:
        line = [str(environment.folder / "bin" / "coppice"), "serve", "--port", "0"]
        process = subprocess.Popen(
            line, cwd=where, env=environment.variables({}), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: "worker.ready" in log.read_text() or process.poll() is not None, "the worker to be ready")
        found = re.search(r"listens on (http://\S+);", log.read_text())
        assert found is not None, log.read_text()
        yield found.group(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM, log.read_text()
    finally:
        process.kill()
        process.wait()


def _refused(environment: Environment, program: str, *arguments: str | Path, **changes: str) -> str:
    """Run what ends with one sentence, and give that."""
    told = environment.run(program, *arguments, **changes)
    assert told.returncode in (1, 2), told.stdout + told.stderr
    assert told.stderr.count("\n") == 1, told.stderr
    return told.stderr


def _own_package(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("OWNER = 'user'\n")


def _wheel(folder: Path, name: str, file: str) -> Path:
    """Make the smallest wheel with one empty file."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(file, "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{file},,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path
