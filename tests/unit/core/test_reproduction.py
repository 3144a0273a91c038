"""What a report says of how its bundle is made again: digests of what was read, and no folder of a server."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from pruning_core.data.digests import rows_digest
from pruning_core.data.rows import Rows
from pruning_core.files.digests import commit_of, model_digests
from pruning_core.report.reproduction import SourceReport, unlike
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from tests import tiny


@pytest.mark.long
def test_a_service_names_its_folders_by_their_last_name(tiny_bert: Path, tmp_path: Path) -> None:
    model, data = tmp_path / "secret" / "minilm", tmp_path / "secret" / "rows"
    shutil.copytree(tiny_bert, model)
    tiny.write_dataset(data)
    report = run(tiny.tiny_spec(model, data), tmp_path / "out", device="cpu", threads=1, model_name="minilm")
    again = report.reproduction
    assert again is not None
    assert (again.model.kind, again.model.name, again.data.name) == ("folder", "minilm", "rows")
    assert (again.spec["model"], again.spec["task"]["dataset"]) == ("minilm", "rows")
    assert again.machine.threads == 1
    assert again.machine.processor
    assert PruneSpec.model_validate(again.spec).target == tiny.tiny_spec(model, data).target
    for name in ("report.json", "report.html", "README.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "secret" not in text, name
        assert "coppice reproduce . --model /path/to/minilm --data /path/to/rows" in unescape(text), name


@pytest.mark.long
def test_a_run_of_ones_own_keeps_the_paths(tiny_bert: Path, tiny_sst2: Path, tmp_path: Path) -> None:
    report = run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", device="cpu")
    assert report.reproduction is not None
    assert report.reproduction.spec == json.loads(tiny.tiny_spec(tiny_bert, tiny_sst2).model_dump_json())
    for name in ("report.html", "README.md"):
        assert str(tiny_sst2.parent) not in (tmp_path / "out" / name).read_text()


def test_digests_of_a_model_are_of_all_that_a_run_reads(tiny_bert: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    before = model_digests(model)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= before.keys()
    (model / "notes.txt").write_text("of no account")
    assert model_digests(model) == before
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert {name for name, digest in model_digests(model).items() if digest != before[name]} == {"tokenizer.json"}


_ROWS = Rows(texts=(("a",), ("b",)), labels=(0.0, 1.0))


@pytest.mark.parametrize(
    "other",
    [
        replace(_ROWS, labels=(1.0, 0.0)),
        replace(_ROWS, labels=None),
        replace(_ROWS, labels=(0.0, 1.5)),
        replace(_ROWS, texts=(("b",), ("a",))),
        replace(_ROWS, texts=(("a",), ("b\ud800",))),
        replace(_ROWS, texts=(("a", ""), ("b",))),
        replace(_ROWS, classes=("no", "yes")),
        _ROWS.take([0]),
    ],
)
def test_other_rows_have_another_digest(other: Rows) -> None:
    assert rows_digest(other) != rows_digest(_ROWS)


def test_rows_of_a_table_of_text_have_the_same_digest() -> None:
    assert rows_digest(replace(_ROWS, labels=("0", "1"), notes=("guessed",))) == rows_digest(_ROWS)


def test_what_is_unlike_is_said_by_name() -> None:
    said = SourceReport(kind="folder", name="m", sha256={"a": "1" * 64, "b": "2" * 64, "c": "3" * 64})
    assert unlike(said, {"a": "1" * 64, "b": "4" * 64, "d": "5" * 64}) == (
        "b has the sha256 444444444444…, and the report says 222222222222…",
        "c is missing",
        "d was not there",
    )
    assert unlike(said, dict(said.sha256)) == ()


def test_the_commit_of_a_snapshot_is_known() -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    assert commit_of(Path("/hub/models--org--name/snapshots") / commit) == commit
    assert commit_of(Path("/models") / commit) is None
