"""Packages that prune decoders, in their environments, where `make peers` has built them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.decoders.case import Case
from benchmarks.decoders.elsewhere import running
from benchmarks.decoders.peers.structure import priced, sizes
from benchmarks.decoders.ways import SETTINGS, Package, ways_at
from pruning_core.arch.adapter import adapt
from pruning_core.arch.linear import weight_of
from pruning_core.models.load import load_task_model

_PACKAGES = [
    (name, setting, way)
    for setting in SETTINGS
    for name, way in ways_at(setting).items()
    if isinstance(way, Package) and setting in ("0.8", "2:4")
]


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "setting", "way"), _PACKAGES, ids=[own[0] for own in _PACKAGES])
def test_a_package_prunes_as_much_as_it_says(case: Case, tmp_path: Path, name: str, setting: str, way: Package) -> None:
    environment = Path(way.script).stem.rpartition("_")[0]
    if not (running.ENVIRONMENTS / environment).is_dir():
        pytest.skip(f"the environment is not there: make peers PEERS={environment}")
    found = running.pruned(way, case, setting, tmp_path, seed=0)
    model = load_task_model(found.folder, "text-generation", torch.device("cpu"))
    own, dense = adapt(model.model), case.evidence.dense
    length = case.evidence.calibration.mean_length
    whole = priced(dense.groups, sizes(dense.groups), length)
    zeros = sum(int((weight_of(linear) == 0).sum()) for linear in own.linears.values())
    kept = (priced(own.groups, sizes(own.groups), length) - length * zeros) / whole
    assert found.numbers["macs"] == pytest.approx(kept, rel=1e-6)
    if setting == "2:4":
        weights = torch.cat([weight_of(linear).reshape(-1, 4) for linear in own.linears.values()])
        assert bool(((weights == 0).sum(1) >= 2).all())
    else:
        assert found.numbers["macs"] <= 0.8


def test_a_script_that_fails_says_why(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = tmp_path / "torch_pruning" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text("#!/bin/sh\necho one >&2\necho 'ValueError: no such model' >&2\nexit 3\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(running, "ENVIRONMENTS", tmp_path)
    with pytest.raises(running.Failed, match=r"torch_pruning_llama\.py failed: ValueError: no such model"):
        running.pruned(Package("torch_pruning_llama.py", ("0.8",)), case, "0.8", tmp_path, seed=0)
