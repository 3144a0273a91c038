"""What jobs keep of dense models on a worker's host: apart by tenant, within a budget, gone with the tenant."""

from __future__ import annotations

import os
import time

import pytest

from app.settings import Settings
from app.tenants.records import Deletion
from worker.kept import KeptRoom


@pytest.fixture
def room(tmp_path):
    def make(**changes):
        return KeptRoom(Settings(data_dir=tmp_path, statistics_bytes=100, **changes))

    return make


def _put(folder, name, size=40, age_s=0.0):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"x" * size)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def _deletion(owner, finished_at):
    return Deletion(owner, 0.0, with_audit=False, finished_at=finished_at, counts={})


def test_tenants_share_nothing_unless_the_operator_says_so(room):
    assert room().folder_of("a") != room().folder_of("b")
    assert room(statistics_shared=True).folder_of("a") == room(statistics_shared=True).folder_of("b")


def test_nothing_is_kept_where_there_is_no_budget(tmp_path):
    assert KeptRoom(Settings(data_dir=tmp_path, statistics_bytes=0)).folder_of("a") is None


def test_a_sweep_deletes_what_is_over_the_budget_and_what_is_no_piece(room):
    folder = room().folder_of("a")
    old = _put(folder, "old.safetensors", age_s=30)
    recent = [_put(folder, f"{name}.safetensors", age_s=10) for name in "bc"]
    strange = [_put(folder, "notes.txt"), folder / "link.safetensors"]
    strange[1].symlink_to(recent[0])
    (folder / "inner" / "deep").mkdir(parents=True)
    _put(folder, "left.7.partial", age_s=7200)
    room().sweep([])
    assert sorted(folder.iterdir()) == recent
    assert not old.exists()


@pytest.mark.parametrize("ended", [False, True])
def test_a_deleted_tenant_leaves_nothing(room, ended):
    mine, other = (_put(room().folder_of(owner), "a.safetensors") for owner in ("gone", "stays"))
    room().sweep([_deletion("gone", time.time() + 1 if ended else None)])
    assert not mine.parent.exists()
    assert other.exists()


def test_a_tenant_of_the_same_name_that_came_after_keeps_its_own(room):
    mine = _put(room().folder_of("name"), "a.safetensors")
    room().sweep([_deletion("name", time.time() - 60)])
    assert mine.exists()
