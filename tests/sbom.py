"""``make sbom``: the bill of materials of both distributions, in CycloneDX, with the hash of every file that is accepted.

Of what each distribution brings with all of its extras for users, as locked for Linux: ``tests/locks.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.locks import FOLDER, ROOT

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# The distribution, its table, and the set of its lock file.
BILLS = {
    "coppice-prune": (ROOT / "pyproject.toml", "prune"),
    "coppice-server": (ROOT / "deploy" / "server" / "pyproject.toml", "worker"),
}
SPEC_VERSION = "1.6"


def write(name: str, folder: Path) -> Path:
    """Write the bill of a distribution, and validate it."""
    table, locked = BILLS[name]
    path = folder / f"{name}.cdx.json"
    # It knows versions in the table alone, and a version that a hook fills in stands in the other table.
    with tempfile.TemporaryDirectory() as made:
        described = Path(made) / "pyproject.toml"
        described.write_text(table.read_text().replace('dynamic = ["version",', f'version = "{VERSION}"\ndynamic = ['))
        options = ["--pyproject", str(described), "--mc-type", "application", "--spec-version", SPEC_VERSION]
        options += ["--output-reproducible", "--output-file", str(path), "--no-validate"]
        line = [sys.executable, "-m", "cyclonedx_py", "requirements", *options, str(FOLDER / f"{locked}.txt")]
        subprocess.run(line, check=True, capture_output=True)
    _without_index(path)
    check(path)
    return path


def check(path: Path) -> None:
    """Validate a bill strictly against the schema. Raises `ValueError`."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text())
    if error is not None:
        raise ValueError(f"{path.name} is no CycloneDX {SPEC_VERSION}: {error}")


def _without_index(path: Path) -> None:
    """Leave out where the files come from, which is each user's own choice; their hashes stay."""
    document = json.loads(path.read_text())
    for component in document["components"]:
        hashes = [entry for reference in component.pop("externalReferences", []) for entry in reference.get("hashes", [])]
        if hashes:
            # CycloneDX means the hashes of one file; those of alternatives are properties.
            listed = [{"name": "coppice:accepted-file:sha256", "value": entry["content"]} for entry in hashes]
            component["properties"] = [*component.get("properties", []), *listed]
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def main(folder: Path) -> None:
    """Write both."""
    folder.mkdir(exist_ok=True)
    for name in BILLS:
        path = write(name, folder)
        print(f"{path}: {len(json.loads(path.read_text())['components'])} components")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
