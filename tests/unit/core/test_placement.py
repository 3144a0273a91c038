"""What memory is left, and when weights are paged."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from pruning_core.errors import OutOfMemory
from pruning_core.files.checkpoint import CheckpointFacts, read_checkpoint
from pruning_core.models import placement
from pruning_core.models.placement import free_memory, place_weights
from tests import tiny

CPU = torch.device("cpu")


def test_limits_of_control_groups_of_both_versions_count_less_what_is_cached_of_files(tmp_path: Path):
    (tmp_path / "membership").write_text("4:memory:/a/b\n2:cpu:/x\n0::/c\n")
    _write(tmp_path / "memory" / "a", **{"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "700"})
    (tmp_path / "memory" / "a" / "memory.stat").write_text("total_inactive_file 50\ntotal_active_file 20\nrss 9\n")
    _write(tmp_path / "c", **{"memory.max": "max", "memory.current": "5"})
    _write(tmp_path, **{"memory.max": "400", "memory.current": "100"})
    assert list(placement.control_groups(tmp_path, tmp_path / "membership")) == [370, 300]


def test_a_machine_without_control_groups_has_none(tmp_path: Path):
    assert list(placement.control_groups(tmp_path, tmp_path / "none")) == []


def test_the_limit_of_the_process_counts():
    code = (
        "import resource, torch; resource.setrlimit(resource.RLIMIT_DATA, (2**32, 2**32));"
        "from pruning_core.models.placement import free_memory; print(free_memory(torch.device('cpu')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 2**32
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY, "this process has none"


def test_what_fits_stays_in_memory_and_what_does_not_is_paged(monkeypatch, tiny_bert: Path, tiny_sst2: Path):
    facts = read_checkpoint(tiny_bert)
    assert place_weights(tiny.tiny_spec(tiny_bert, tiny_sst2), facts, CPU).weights == "resident"
    large = CheckpointFacts(facts.config, {"huge": (2**20, 2**20)}, facts.dtypes, facts.weight_files)
    placed = place_weights(tiny.tiny_spec(tiny_bert, tiny_sst2), large, CPU)
    assert placed.weights == "paged"
    assert placed.needed_bytes > placed.free_bytes > 0
    resident = tiny.tiny_spec(tiny_bert, tiny_sst2, memory={"weights": "resident"})
    assert place_weights(resident, large, CPU).weights == "resident"
    latency = tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "latency", "keep": 0.5})
    with pytest.raises(OutOfMemory, match="a target of latency is measured on the whole model"):
        place_weights(latency, large, CPU)
    healed = tiny.tiny_spec(tiny_bert, tiny_sst2, recovery={"heal": "distil"})
    with pytest.raises(OutOfMemory, match=r"since healing \(recovery.heal\) trains the whole model; .*leave healing out"):
        place_weights(healed, large, CPU)
    # Gradients and moments beside the two models: what can be pruned may be too large to be healed.
    monkeypatch.setattr("pruning_core.models.placement.free_memory", lambda _device: 2**34)
    larger = CheckpointFacts(facts.config, {"large": (2**34 // (4 * 5),)}, facts.dtypes, facts.weight_files)
    with pytest.raises(OutOfMemory, match="trains the whole model"):
        place_weights(healed, larger, CPU)
    assert place_weights(tiny.tiny_spec(tiny_bert, tiny_sst2), larger, CPU).weights == "resident"


def test_free_memory_is_what_the_machine_has_at_most():
    assert 0 < free_memory(CPU) < 2**50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": {"metric": "latency", "keep": 0.5}}, "a target of latency is measured on the whole model"),
        ({"method": {"name": "admm-pattern", "tier": "trained"}, "target": None}, "the trained tier trains the whole model"),
        ({"artifacts": {"formats": ["safetensors", "onnx"]}}, "leave onnx out of artifacts.formats"),
        (
            {"method": "admm-pattern", "target": None, "artifacts": {"formats": ["safetensors", "compressed"]}},
            "leave compressed out of artifacts.formats",
        ),
    ],
)
def test_what_needs_all_weights_is_refused_where_they_are_to_be_paged(changes, message, tmp_path: Path):
    with pytest.raises(ValidationError, match=message):
        tiny.tiny_spec(tmp_path, tmp_path, memory={"weights": "paged"}, **changes)


def test_the_compressed_form_is_not_meant_where_weights_are_paged(tmp_path: Path):
    spec = tiny.tiny_spec(tmp_path, tmp_path, memory={"weights": "paged"}, method="admm-pattern", target=None)
    assert spec.artifacts.formats == ("safetensors",)


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
