"""``make audit``: look the pinned dependencies up among known vulnerabilities, and say plainly where that cannot be done.

pip-audit passes over what it finds no data on, with a clean exit. So one well-known package is asked for first: where not
even that is known, there is no data to be reached from here, and nothing is claimed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
_PROBE = "requests"
_PATIENCE_S = 300


@dataclass(frozen=True)
class Findings:
    """What an audit has found."""

    audited: int
    skipped: int
    vulnerable: dict[str, list[str]]  # package and version, ids

    @classmethod
    def of(cls, document: dict[str, Any]) -> Findings:
        """Read pip-audit's JSON."""
        known = [item for item in document["dependencies"] if "skip_reason" not in item]
        vulnerable = {f"{item['name']}=={item['version']}": [v["id"] for v in item["vulns"]] for item in known if item["vulns"]}
        return cls(len(known), len(document["dependencies"]) - len(known), vulnerable)


def audit(requirements: list[str]) -> Findings | None:
    """Audit pinned requirements; None where pip-audit gives no result."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("\n".join(requirements), encoding="utf-8")
        line = [sys.executable, "-m", "pip_audit", "--requirement", str(path), "--no-deps", "--disable-pip", "--format", "json"]
        try:
            told = subprocess.run(line, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
            return Findings.of(json.loads(told.stdout))
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            return None


def main() -> int:
    """Print what was found; 1 where something is vulnerable."""
    pins = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    probe = audit([pin for pin in pins if pin.startswith(f"{_PROBE}==")])
    if probe is None or probe.audited == 0:
        print("audit: NOT DONE: the data on vulnerabilities cannot be reached from here; nothing is known of any package")
        return 0
    found = audit(pins)
    if found is None:
        print("audit: NOT DONE: pip-audit gave no result")
        return 0
    for package, ids in found.vulnerable.items():
        print(f"audit: {package}: {', '.join(ids)}")
    print(f"audit: {len(found.vulnerable)} vulnerable of {found.audited} packages; nothing is known of {found.skipped}")
    return 1 if found.vulnerable else 0


if __name__ == "__main__":
    raise SystemExit(main())
