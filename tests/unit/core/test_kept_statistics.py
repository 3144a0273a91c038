"""What a run finds out about the dense model is kept: later runs take it, and write the same bytes as without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.kept.folder import KeptFolder
from pruning_core.kept.piece import Damaged, Piece, packed, read_piece, unpacked, write_piece
from pruning_core.kept.statistics import Statistics
from pruning_core.run.pipeline import calibrate, run
from tests import tasks, tiny


def _run(spec, out, kept=None):
    return run(spec, out, device="cpu", threads=1, statistics=kept)


def _weights(folder):
    return (folder / "model.safetensors").read_bytes()


def _reused(report):
    return {own.kind for own in report.statistics.pieces if own.reused}


_EVERYTHING = {"name": "fisher-cg", "rearrange": True, "labels": "use", "interactions": "kronecker"}


@pytest.mark.parametrize(
    ("method", "shares"),
    [
        ("fisher-cg", [0.5, 0.3]),
        (_EVERYTHING, [0.5, 0.3]),
        ("block-lasso", [0.5, 0.3]),
        ({"name": "admm-pattern", "pattern": "unstructured"}, [0.5, 0.6]),
    ],
    ids=["fisher", "everything", "lasso", "admm"],
)
def test_a_second_target_has_the_bytes_of_a_job_of_its_own(method, shares, tiny_bert, tiny_sst2, tmp_path):
    kept = KeptFolder(tmp_path / "kept")
    first, second = (
        tiny.tiny_spec(tiny_bert, tiny_sst2, method=method, target={"metric": "sparsity", "sparsity": own}) for own in shares
    )
    told = _run(first, tmp_path / "first", kept)
    assert not _reused(told)
    assert told.statistics.pieces
    later = _run(second, tmp_path / "later", kept)
    _run(second, tmp_path / "alone")
    assert _weights(tmp_path / "later") == _weights(tmp_path / "alone")
    assert _reused(later) == {own.kind for own in told.statistics.pieces}, "all that was kept is found"
    assert later.quality.dense == told.quality.dense

    for path in kept.folder.iterdir():  # the states make room, and are recorded again by a pass of their own
        if "block" in load_file(path):
            path.unlink()
    again = _run(second, tmp_path / "again", kept)
    assert "states" not in _reused(again)
    assert _weights(tmp_path / "again") == _weights(tmp_path / "alone")


@pytest.mark.parametrize("task_type", ["text-generation", "summarization", "image-classification"])
@pytest.mark.long
def test_every_kind_of_answer_is_found_again(task_type, tmp_path):
    kept = KeptFolder(tmp_path / "kept")
    model, data = tasks.write_task_model(tmp_path / "model", task_type), tasks.write_task_data(tmp_path / "data", task_type)
    spec = tiny.tiny_spec(model, data, task=tasks.task_of(task_type, data))
    told = _run(spec, tmp_path / "first", kept)
    later = _run(spec, tmp_path / "later", kept)
    assert later.quality == told.quality
    assert _weights(tmp_path / "later") == _weights(tmp_path / "first")
    assert "answers" in _reused(later)
    assert ("writing" in _reused(later)) == (task_type == "text-generation")


@pytest.mark.parametrize("task_type", ["text-classification", "text-generation"])
@pytest.mark.long
def test_after_a_calibration_a_run_gathers_nothing(task_type, tmp_path):
    kept = KeptFolder(tmp_path / "kept")
    model, data = tasks.write_task_model(tmp_path / "model", task_type), tasks.write_task_data(tmp_path / "data", task_type)
    spec = tiny.tiny_spec(model, data, task=tasks.task_of(task_type, data))
    seen = []
    told = calibrate(spec, kept, device="cpu", threads=1, on_progress=seen.append)
    assert not any(own.reused for own in told.pieces)
    assert {"scores", "states", "answers"} <= {own.kind for own in told.pieces}
    assert [now.stage for now in seen][-1] == "evaluate"
    again = calibrate(spec, kept, device="cpu", threads=1)
    assert all(own.reused for own in again.pieces)
    report = _run(spec, tmp_path / "out", kept)
    assert _reused(report) == {own.kind for own in told.pieces}
    assert all(own.reused for own in report.statistics.pieces)
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "model", "data", "out"}


@pytest.mark.long
def test_other_settings_models_and_rows_find_no_scores(tiny_bert, tiny_sst2, tmp_path):
    kept = KeptFolder(tmp_path / "kept")
    _run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "first", kept)
    others = [
        tiny.tiny_spec(tiny_bert, tiny_sst2, seed=1),
        tiny.tiny_spec(tiny_bert, tiny_sst2, calibration={"samples": 64, "max_length": 8, "batch_tokens": 256}),
        tiny.tiny_spec(tiny_bert, tiny_sst2, method={"name": "fisher-cg", "representation": 0.0}),
        tiny.tiny_spec(tiny.write_model(tmp_path / "model", "bert", seed=1), tiny_sst2),
        tiny.tiny_spec(tiny_bert, tiny.write_dataset(tmp_path / "data", seed=1)),
    ]
    for at, spec in enumerate(others):
        report = _run(spec, tmp_path / f"other{at}", kept)
        assert "scores" not in _reused(report), at


@pytest.mark.long
def test_a_damaged_piece_is_told_of_and_gathered_anew(tiny_bert, tiny_sst2, tmp_path):
    kept = KeptFolder(tmp_path / "kept")
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2)
    _run(spec, tmp_path / "first", kept)
    files = sorted(kept.folder.iterdir())
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    report = _run(spec, tmp_path / "later", kept)
    assert not _reused(report)
    told = [said for said in report.warnings if "were damaged and gathered anew" in said]
    assert len(told) == len(files) - 1, "states are recorded by the scoring pass, and not looked for"
    assert _weights(tmp_path / "later") == _weights(tmp_path / "first")
    assert _reused(_run(spec, tmp_path / "again", kept)) == {own.kind for own in report.statistics.pieces}


@pytest.mark.parametrize("how", ["cut", "flipped", "renamed", "no piece", "no safetensors"])
def test_what_is_not_what_was_written_is_damaged_and_goes(how, tmp_path):
    folder, key = KeptFolder(tmp_path), {"name": "a"}
    folder.write(key, Piece({"values": torch.arange(100)}, {"of": "a"}))
    (path,) = tmp_path.iterdir()
    match how:
        case "cut":
            path.write_bytes(path.read_bytes()[:-16])
        case "flipped":
            path.write_bytes(path.read_bytes().replace(b'\\"of\\":\\"a\\"', b'\\"of\\":\\"b\\"'))
        case "renamed":
            folder.write({"name": "b"}, Piece({"values": torch.arange(100)}, {"of": "a"}))
            (other,) = {*tmp_path.iterdir()} - {path}
            other.replace(path)
        case "no piece":
            save_file({"values": torch.zeros(3)}, path)
        case _:
            path.write_bytes(b"{}")
    with pytest.raises(Damaged):
        folder.read(key)
    assert folder.read(key) is None


def _kept(folder: Path, name: str) -> bool:
    return KeptFolder(folder).read({"name": name}) is not None


def test_a_full_folder_makes_room_for_what_is_newer(tmp_path):
    size = 1000
    piece = Piece({"values": torch.zeros(size, dtype=torch.uint8)})
    folder = KeptFolder(tmp_path, 4 * size)
    for at, name in enumerate("abc"):
        assert folder.write({"name": name}, piece)
        newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (at, at))
    assert folder.read({"name": "a"}) is not None, "used now"
    assert folder.write({"name": "d"}, piece)
    assert _kept(tmp_path, "a")
    assert not _kept(tmp_path, "b"), "the least recently used"
    assert _kept(tmp_path, "d")
    assert not folder.write({"name": "huge"}, Piece({"values": torch.zeros(5 * size)}))
    assert _kept(tmp_path, "d"), "what cannot be kept at all drives nothing out"


@pytest.mark.long
def test_a_place_that_cannot_be_written_fails_no_run(tiny_bert, tiny_sst2, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder should be")
    report = _run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", KeptFolder(tmp_path / "kept"))
    assert report.statistics.pieces == ()


def test_what_a_killed_run_has_left_is_cleared(tmp_path):
    tmp_path.joinpath("left.7.partial").write_bytes(b"half")
    os.utime(tmp_path / "left.7.partial", (0, 0))
    tmp_path.joinpath("young.8.partial").write_bytes(b"half")
    KeptFolder(tmp_path).write({}, Piece({"values": torch.zeros(1)}))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".partial", ".safetensors"]
    assert (tmp_path / "young.8.partial").exists(), "somebody may be writing it"


def test_tensors_of_any_shape_and_type_come_back(tmp_path):
    parts = [
        torch.arange(6).view(2, 3),
        torch.tensor(1.5),
        torch.zeros(0),
        torch.ones(2, dtype=torch.bfloat16),
        torch.arange(4),
    ]
    write_piece(tmp_path / "piece", {"a": 1}, packed(parts))
    for given, found in zip(parts, unpacked(read_piece(tmp_path / "piece", {"a": 1})), strict=True):
        assert found.dtype == given.dtype
        assert torch.equal(found, given)
    with pytest.raises(Damaged, match="another key"):
        read_piece(tmp_path / "piece", {"a": 2})


def test_without_a_folder_everything_is_gathered_and_nothing_is_said():
    statistics = Statistics()
    calls = []
    for _ in range(2):
        statistics.found("scores", dict, lambda: calls.append(1), pack=Piece, unpack=dict)
    assert len(calls) == 2
    assert statistics.report() is None
