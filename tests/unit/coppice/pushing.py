"""A bundle to be pushed, and the command that pushes it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from typer.testing import CliRunner

from coppice.cli import app
from pruning_core.artifacts.bundle import write_manifest

WEIGHTS = random.Random(1).randbytes(300_000)
CONTENT = {
    "1_Pooling/config.json": b'{"mean": true}',
    "README.md": b"---\nlicense: apache-2.0\n---\n# A smaller model\n",
    "config.json": b"{}",
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "report.html": b"<p>report</p>",
}


def write_bundle(folder: Path) -> Path:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder)
    return folder


def push(*line: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["push", *map(str, line)], env={"TERM": "dumb", "COLUMNS": "400"})
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def digest_of(bundle: Path) -> str:
    return hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()


def whole(bundle: Path) -> dict[str, bytes]:
    return CONTENT | {"manifest.json": (bundle / "manifest.json").read_bytes()}
