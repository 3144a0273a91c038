"""Runs a package's script in its environment (``make peers``): the dense model and the very tokens go in, a model out."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.decoders.case import Case
    from benchmarks.decoders.ways import Package

ENVIRONMENTS = Path(os.environ.get("COPPICE_PEERS_DIR", Path(__file__).resolve().parents[3] / ".venv" / "peers"))
_LIMIT_S = 4 * 3600


class Failed(Exception):
    """A package's environment is not there, or its script has failed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a package has made.

    Attributes:
        folder: The pruned checkpoint.
        numbers: Its share of the multiply-accumulates, and versions.
        seconds: By stage.
    """

    folder: Path
    numbers: dict[str, Any]
    seconds: dict[str, float]


def pruned(way: Package, case: Case, setting: str, scratch: Path, seed: int) -> Found:
    """Run the script.

    Raises:
        Failed: There is no environment, or the script ends with an error.
    """
    script = Path(__file__).with_name(way.script)
    environment = script.stem.rpartition("_")[0]
    interpreter = ENVIRONMENTS / environment / "bin" / "python"
    if not interpreter.is_file():
        raise Failed(f"the environment of {environment} is not there: make peers PEERS={environment}")
    given, made = scratch / "tokens.json", scratch / "pruned"
    calibration = case.evidence.calibration
    ids = [row.tolist() for batch in calibration.batches for row in batch.inputs["input_ids"] if bool(batch.real.all())]
    given.write_text(json.dumps(ids), encoding="utf-8")
    places = ["--model", case.spec.model, "--tokens", str(given), "--out", str(made)]
    asked = ["--setting", setting, "--seed", str(seed), "--length", str(calibration.mean_length), *way.options]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(interpreter), str(script), *places, *asked],
        check=False,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        env={**own, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode or not (made / "result.json").is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Failed(f"{way.script} failed: {last[:300]}")
    result = json.loads((made / "result.json").read_text(encoding="utf-8"))
    numbers = {"macs": result["macs"], "versions": result["versions"], "tokens": sum(map(len, ids))}
    return Found(made, {**numbers, "fingerprint": calibration.fingerprint}, result["seconds"])
