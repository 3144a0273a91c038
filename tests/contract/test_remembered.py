"""Inspections are remembered while question and files are the same ones, and for no longer."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.inspection import memory
from app.inspection.memory import Imprint, Memory, imprint_of, key_of
from app.inspection.process import Zygote
from app.inspection.protocol import CheckSpec, Resolved
from app.inspection.records import Limits
from pruning_core.checks.findings import Findings
from pruning_core.spec.prune import Columns, PruneSpec
from tests import tiny
from tests.contract.archives import TAR, contents, packed
from tests.contract.conftest import Api
from tests.contract.problems import assert_problem
from tests.contract.test_security import key_of as api_key


class Counting(Zygote):
    """Counts the processes that are forked."""

    looks = 0

    def order(self, limits: Limits, work: socket.socket, fate: int) -> None:
        self.looks += 1
        super().order(limits, work, fate)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Counting]:
    own = Counting()
    yield own
    own.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files that were changed just now for settled ones, where a test is not about that."""
    monkeypatch.setattr(memory, "_SETTLED_NS", 0)


@pytest.fixture
def body(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> dict[str, object]:
    shutil.copytree(tiny_bert, tmp_path / "root" / "model")
    shutil.copytree(tiny_sst2, tmp_path / "root" / "data")
    return {
        "model": str(tmp_path / "root" / "model"),
        "task": "glue/sst2",
        "data": str(tmp_path / "root" / "data"),
        "sparsity": 0.5,
    }


@pytest.fixture
def api(make_api: Callable[..., Api], tmp_path: Path) -> Api:
    return make_api("", allowed_roots=(tmp_path / "root", tmp_path / "other"))


@pytest.fixture
def looks(zygote: Counting, api: Api, body: dict[str, object]) -> Callable[..., int]:
    """Submit, and return how many processes have looked at the files for it."""

    def submit(status: int = 202, **changes: object) -> int:
        before = zygote.looks
        response = api.client.post("/v1/jobs", json=body | changes)
        assert response.status_code == status, response.text
        return zygote.looks - before

    return submit


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file in place, with the same size and the time of change of before."""
    status, before = path.stat(), path.read_bytes()
    after = change(before)
    assert len(after) == len(before)
    with path.open("r+b") as file:
        file.write(after)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (status.st_mtime_ns, status.st_ino)


def test_a_sweep_of_seeds_is_looked_at_once(api: Api, looks: Callable[..., int]) -> None:
    assert looks(seed=1) == 1
    assert [looks(seed=seed) for seed in (1, 2, 3)] == [0, 0, 0]
    specs = [job["spec"] for job in api.client.get("/v1/jobs").json()["data"]]
    assert [own["seed"] for own in specs] == [3, 2, 1, 1]
    assert len({str(own | {"seed": 0}) for own in specs}) == 1, "the answer that is remembered is the one that was given"
    assert looks(sparsity=0.4) == 1, "another question"
    assert looks(sparsity=0.4, priority=3, metadata={"a": "b"}) == 0


def test_a_file_that_was_rewritten_is_looked_at_again(api: Api, body: dict[str, object], looks: Callable[..., int]) -> None:
    assert (looks(), looks()) == (1, 0)
    rewrite(Path(str(body["model"])) / "config.json", lambda text: text.replace(b'"bert"', b'"tree"'))
    assert looks(422) == 1
    assert looks(422) == 1, "a refusal is not remembered"
    rewrite(Path(str(body["model"])) / "config.json", lambda text: text.replace(b'"tree"', b'"bert"'))
    assert (looks(), looks()) == (1, 0)
    next(Path(str(body["data"])).glob("train*")).unlink()
    assert looks(422) == 1
    (Path(str(body["model"])) / "notes.txt").write_text("a file more")
    assert looks(422) == 1


def test_what_was_changed_just_now_is_looked_at_again(looks: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next change may come within one step of the file system's clock, and leave no trace."""
    monkeypatch.setattr(memory, "_SETTLED_NS", 3600 * 10**9)
    assert (looks(), looks(), looks()) == (1, 1, 1)


def test_links_count_by_where_they_lead(tmp_path: Path, body: dict[str, object], looks: Callable[..., int]) -> None:
    model, blobs = Path(str(body["model"])), tmp_path / "other"
    blobs.mkdir()
    for name in ("one", "two"):
        shutil.copy(model / "config.json", blobs / name)
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(blobs / "one")
    assert (looks(), looks()) == (1, 0)
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(blobs / "two")
    assert (looks(), looks()) == (1, 0)
    rewrite(blobs / "two", lambda text: text.replace(b'"bert"', b'"tree"'))
    assert looks(422) == 1
    rewrite(blobs / "two", lambda text: text.replace(b'"tree"', b'"bert"'))
    assert (looks(), looks()) == (1, 0)
    shutil.move(blobs, tmp_path / "outside")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(tmp_path / "outside" / "two")
    assert looks(422) == 1, "it leads out of the roots now"


def test_the_main_branch_of_a_snapshot_stands_beside_it(
    tmp_path: Path, body: dict[str, object], looks: Callable[..., int]
) -> None:
    repository = tmp_path / "root" / "models--org--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    shutil.move(str(body["model"]), snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    changes = {"model": str(snapshot)}
    assert (looks(**changes), looks(**changes)) == (1, 0)
    rewrite(repository / "refs" / "main", lambda text: text.replace(b"0", b"1"))
    assert looks(**changes) == 1


def test_tenants_share_nothing(make_api: Callable[..., Api], zygote: Counting, tmp_path: Path, body: dict[str, object]) -> None:
    api = make_api("", auth=True, secret="s" * 40, allowed_roots=(tmp_path / "root",))
    one, other = api_key(api, "one"), api_key(api, "other")
    sent = api.client.post("/v1/models", content=packed(contents(Path(str(body["model"])))), headers=one | TAR).json()["id"]
    for named in ({}, {"model": sent}):
        before = zygote.looks
        assert [api.client.post("/v1/jobs", json=body | named, headers=one).status_code for _ in range(2)] == [202, 202]
        assert zygote.looks - before == 1
        answer = api.client.post("/v1/jobs", json=body | named, headers=other)
        if named:
            assert_problem(answer, 422, "upload_not_found")
        else:
            assert answer.status_code == 202
            assert zygote.looks - before == 2


def test_what_needed_too_much_is_asked_again(
    make_api: Callable[..., Api], zygote: Counting, tmp_path: Path, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api("", allowed_roots=(tmp_path / "root",))
    monkeypatch.setattr("app.inspection.inspector._CHECK_CPU_S", 0)  # killed by its limit
    before = zygote.looks
    problem = assert_problem(api.client.post("/v1/jobs", json=body), 422, "model_unreadable")
    assert "need more memory or time" in problem["detail"]
    monkeypatch.undo()
    assert api.client.post("/v1/jobs", json=body).status_code == 202
    assert zygote.looks - before == 2


@pytest.fixture
def question(tmp_path: Path, body: dict[str, object]) -> CheckSpec:
    spec = tiny.tiny_spec(Path(str(body["model"])), Path(str(body["data"])))
    return CheckSpec(spec=spec, roots=(tmp_path / "root",), closed=(), uploaded=frozenset(), predicts=False)


def test_nothing_outside_of_the_roots_is_touched(
    question: CheckSpec, tmp_path: Path, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    seen: list[str] = []
    for name in ("stat", "lstat", "readlink", "scandir", "listdir", "open"):
        real = getattr(os, name)

        def spy(path: object, *arguments: object, _real: Callable[..., object] = real, **named: object) -> object:
            seen.append(str(path))
            return _real(path, *arguments, **named)

        monkeypatch.setattr(os, name, spy)
    assert imprint_of(question) is not None
    (Path(str(body["model"])) / "deep").symlink_to(outside)
    assert imprint_of(question) is None
    elsewhere = question.model_copy(update={"spec": question.spec.model_copy(update={"model": str(outside / "file")})})
    assert imprint_of(elsewhere) is None
    assert not [own for own in seen if own.startswith(str(outside))]
    assert any(own.startswith(str(body["model"])) for own in seen), "the spy sees"


def test_large_folders_are_looked_at_each_time(
    looks: Callable[..., int], body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MOST_MEMBERS", 3)
    assert (looks(), looks()) == (1, 1)


def _answer(spec: PruneSpec) -> Resolved:
    return Resolved(
        model=spec.model, data={}, columns=Columns(label="label"), also_columns=(), findings=Findings(), prediction=None
    )


def test_memory_is_bounded_and_doubts(question: CheckSpec) -> None:
    own, now, same = Memory(most=2), 10**18, Imprint(b"same", 10**17)
    answer = _answer(question.spec)
    for name in (b"a", b"b"):
        own.keep(name, answer, same, same, since_ns=now)
    assert own.answer(b"a", same) is answer
    own.keep(b"c", answer, same, same, since_ns=now)
    assert [own.knows(name) for name in (b"a", b"b", b"c")] == [True, False, True], "that of longest ago is forgotten"
    assert own.answer(b"a", Imprint(b"other", 10**17)) is None
    assert own.answer(b"a", None) is None
    for before, after in ((same, Imprint(b"other", 10**17)), (None, same), (same, None)):
        own.keep(b"d", answer, before, after, since_ns=now)
    own.keep(b"d", answer.model_copy(update={"model": "x" * 20_000}), same, same, since_ns=now)
    assert not own.knows(b"d")
    assert key_of(question, "one") != key_of(question, "other")
