"""Make one generation of fixtures: what a release has written, for later ones to load, migrate and serve.

``python -m tests.upgrade.make COMMIT FOLDER``, in a checkout whose product is that of COMMIT. It takes five minutes, and needs
PostgreSQL (tests/install_servers.sh).

- ``fixtures/0001-1ac4d00`` was made by this script, once, from commit 1ac4d00: the product as it was before fields were added
  to requests, and before ``pruning_core`` was divided into rooms.
- Each release adds a folder: before the version is raised, run this script and commit what it writes. An old folder is never
  made again and never edited, since what people have on their disks does not change either. The tests of this folder run over
  every generation that there is.
- Keys and secrets in the fixtures are those of this script's own services, which are gone.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.integration.service import Backend, Service
from tests.servers import new_database, postgres
from tests.upgrade.making.bundles import make_bundles, taken
from tests.upgrade.making.packing import dump, pack, settle
from tests.upgrade.making.specs import SPECS
from tests.upgrade.making.state import make_state
from tests.upgrade.product import PruneSpec

_PRODUCT = ("app", "coppice", "migrations", "pruning_core", "worker", "pyproject.toml")
_LIBRARIES = ("alembic", "pydantic", "safetensors", "sqlalchemy", "torch", "transformers")


def main(commit: str, out: Path) -> None:
    """Make everything, in a folder that is not there yet."""
    root = Path(__file__).resolve().parents[2]
    same = subprocess.run(["git", "-C", str(root), "diff", "--quiet", commit, "--", *_PRODUCT], check=False)
    if same.returncode != 0:
        sys.exit(f"the product of this checkout is not that of {commit}: check that out first")
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="coppice-made-") as name:
        _make(Path(name), commit, out)


def _make(root: Path, commit: str, out: Path) -> None:
    inputs, bundles = root / "inputs", root / "bundles"
    inputs.mkdir()
    checkpoints = make_bundles(bundles, inputs)
    with Service(Backend("local", root / "asked", "", ""), root, bundles, inputs).api() as client:
        for checkpoint in checkpoints:
            checkpoint["taken_by"] = taken(client, bundles, checkpoint)
    made = {"root": str(root), "checkpoints": checkpoints}
    pack(out / "bundles.tar.gz", {"bundles": bundles, "inputs/data": inputs / "data", "made.json": _json(made)})

    local = Backend("local", root / "local" / "coppice-data", "", "")
    record = make_state(local, inputs, bundles, _new(root / "local"), {}) | {"root": str(local.data_dir)}
    settle(local.data_dir / "coppice.db")
    pack(out / "state.tar.gz", {"coppice-data": local.data_dir, "record.json": _json(record)})

    with postgres() as server:
        url = new_database(server.port)
        production = Backend("postgresql", root / "production" / "coppice-data", url, "")
        secret = {"COPPICE_SECRET": f"the secret of the fixtures of {commit}".ljust(32, ".")}
        record = make_state(production, inputs, bundles, _new(root / "production"), secret)
        record |= {"root": str(production.data_dir), "secret": secret}
        pack(out / "postgresql.tar.gz", {"dump.sql": dump(url), "record.json": _json(record)})

    _write_specs(out)
    libraries = {name: version(name) for name in _LIBRARIES} | {"python": platform.python_version()}
    (out / "made.json").write_text(_json({"commit": commit, "version": version("coppice"), "libraries": libraries}))


def _write_specs(out: Path) -> None:
    """Write each spec as a file for ``coppice run --spec``, and all of them as this version understands them."""
    (out / "specs").mkdir()
    meant: dict[str, Any] = {}
    for name, body in SPECS.items():
        spec = {field: value for field, value in body.items() if field not in ("metadata", "priority")}
        (out / "specs" / f"{name}.json").write_text(_json(spec))
        meant[name] = PruneSpec.model_validate(spec).model_dump(mode="json")
    (out / "meant.json").write_text(json.dumps(meant) + "\n")


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
