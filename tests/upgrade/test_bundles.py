"""Bundles of earlier releases load as they always did, and answer what they always answered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service import sha256
from tests.upgrade.generation import Generation, every_generation
from tests.upgrade.loading import answers_of, difference

pytestmark = pytest.mark.slow

# Of float32 on another CPU, whose products are summed in another order.
TOLERANCE = 1e-4


@every_generation
@pytest.mark.parametrize("how", ["plug-in", "remote-code"])
@pytest.mark.long
def test_a_bundle_answers_what_it_answered(old: Generation, how: str, tmp_path: Path) -> None:
    checkpoints = old.checkpoints(tmp_path)
    assert checkpoints
    answers = answers_of(tmp_path / "bundles", checkpoints, how, tmp_path)
    for checkpoint, now in zip(checkpoints, answers, strict=True):
        before = checkpoint["answer"]
        assert difference(now["logits"], before["logits"]) <= TOLERANCE, checkpoint["path"]
        for same in ("words", "parameters", "weights", "told"):
            assert now[same] == before[same], (checkpoint["path"], same)
        if before["written"] is not None:
            assert now["written"]["tokens"] == before["written"]["tokens"], checkpoint["path"]


@every_generation
@pytest.mark.long
def test_the_compressed_form_expands_to_the_weights_that_were_compressed(old: Generation, tmp_path: Path) -> None:
    bundle, out = old.unpack("bundles.tar.gz", tmp_path) / "bundles" / "blocks", tmp_path / "expanded"
    command = [sys.executable, "-m", "coppice.cli", "expand", str(bundle / "compressed"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sha256(out / "model.safetensors") == sha256(bundle / "model.safetensors")
