"""What is written appears whole or not at all, and touches nothing of anybody else."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
import torch

from pruning_core.checks.request import check_local_inputs
from pruning_core.data.read import read_rows
from pruning_core.errors import DatasetInvalid, StorageFull
from pruning_core.files.paths import appearing
from pruning_core.run import pipeline, preparation
from tests import tiny


def test_it_appears_when_it_is_whole(tmp_path):
    out = tmp_path / "new" / "out"
    with appearing(out) as partial:
        (partial / "file").write_text("x")
        assert not out.exists()
    assert (out / "file").read_text() == "x"
    assert list(out.parent.iterdir()) == [out]


def _write(out, then):
    with appearing(out) as partial:
        (partial / "file").write_text("mine")
        then()


def test_nothing_is_left_of_what_fails(tmp_path):
    with pytest.raises(ZeroDivisionError):
        _write(tmp_path / "out", lambda: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_others_who_write_to_the_same_place_are_left_alone(tmp_path):
    out = tmp_path / "out"
    theirs = [tmp_path / "out.partial", tmp_path / ".out.killed"]
    for folder in theirs:
        folder.mkdir()
        (folder / "kept").touch()
    with pytest.raises(OSError, match="not empty"):
        _write(out, lambda: _write(out, lambda: None))  # the second begins later and is done first
    assert (out / "file").is_file()
    assert all((folder / "kept").is_file() for folder in theirs)
    assert sorted(tmp_path.iterdir()) == sorted([out, *theirs])


def test_the_umask_decides_who_may_read_it(tmp_path):
    (tmp_path / "mine").mkdir()
    with appearing(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "mine").stat().st_mode


@pytest.fixture
def stopped(monkeypatch, tmp_path):
    """A pipeline that ends where its work would begin; what it saw."""
    seen = {}

    def read(*_arguments, **_options):
        seen["threads"], seen["folders"] = torch.get_num_threads(), [path.name for path in tmp_path.iterdir()]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preparation, "read_splits", read)
    return seen


@pytest.mark.parametrize("threads", [None, 3])
def test_a_run_gives_threads_back(threads, stopped, tiny_bert, tiny_sst2, tmp_path):
    before = torch.get_num_threads()
    with pytest.raises(StorageFull):
        pipeline.run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", device="cpu", threads=threads)
    assert stopped["threads"] == (threads or before)
    assert torch.get_num_threads() == before


def test_a_run_leaves_alone_what_may_be_somebody_elses(stopped, tiny_bert, tiny_sst2, tmp_path):
    theirs = tmp_path / "out.partial"
    theirs.mkdir()
    (theirs / "kept").touch()
    with pytest.raises(StorageFull):
        pipeline.run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", device="cpu")
    assert (theirs / "kept").is_file()
    assert list(tmp_path.iterdir()) == [theirs]
    (own,) = set(stopped["folders"]) - {"out.partial"}
    assert own.startswith(".out.")


@pytest.mark.parametrize("split", ["../other/train", "/etc/train", "a/../../other/train", "..", "train\0"])
def test_a_splits_name_leads_nowhere_else(split, tmp_path, tiny_bert, tiny_sst2):
    """The data set of another tenant lies beside one's own, in the folder of uploads."""
    shutil.copytree(tiny_sst2, tmp_path / "other")
    shutil.copytree(tiny_sst2, tmp_path / "own")
    spec = tiny.tiny_spec(tiny_bert, tmp_path / "own")
    spec = spec.but(task=spec.task.but(train_split=split))
    for look in (check_local_inputs, lambda asked: read_rows(asked.task, "train")):
        with pytest.raises(DatasetInvalid, match="leads out of"):
            look(spec)
    within = spec.task.but(dataset=str(tmp_path), train_split="own/train")
    assert len(read_rows(within, "train")) > 0, "a folder within is no other place"
