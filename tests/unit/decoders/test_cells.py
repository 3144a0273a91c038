"""Cells are made once, of the same tokens for jobs and peers, and again when what they depend on has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.decoders import cells
from benchmarks.decoders.case import Case
from benchmarks.decoders.cells import Maker, Subject, agreement
from benchmarks.decoders.elsewhere import running
from benchmarks.decoders.judging import Judge
from benchmarks.decoders.peers.flap import choose
from benchmarks.decoders.tables import ratio, rows_of, table_of
from benchmarks.decoders.texts import blocks_of
from benchmarks.decoders.ways import SETTINGS, Core, Dense, Package, Peer, ways_at
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import PruneSpec


@pytest.fixture
def maker(case: Case, fields: dict[str, Any], tmp_path: Path) -> Maker:
    lines = [json.loads(line)["text"] for line in (Path(fields["data"]) / "validation.jsonl").read_text().splitlines()]
    case.dense.tokenizer.eos_token = "[SEP]"
    blocks = {"words": blocks_of(case.dense.tokenizer, lines, 12, 48)}
    dense = load_task_model(Path(fields["model"]), "text-generation", torch.device("cpu"))
    own = {name: value for name, value in fields.items() if name != "seed"}
    subject = Subject("tiny", own, Judge.of(dense, case.spec.task, blocks))
    return Maker(subject, tmp_path, subject.digest)


@pytest.mark.long
def test_a_job_and_a_peer_calibrate_on_the_same_tokens(maker: Maker, proven_by_a_fork: None) -> None:
    magnitude = ways_at("0.8")["magnitude, our repair"]
    assert isinstance(magnitude, Core)
    job, peer = maker.make(magnitude, "magnitude", "0.8", 0), maker.make(Peer(choose, repair=True), "FLAP", "0.8", 0)
    assert "reason" not in job
    assert job["fingerprint"] == peer["fingerprint"]
    assert job["tokens"] == peer["tokens"]
    assert job["macs"] <= 0.8
    assert peer["macs"] <= 0.8
    assert {own.dtype for own in maker.case(0).dense.model.parameters()} == {torch.float32}, "it has more students to make"
    dense = maker.make(Dense(), "dense", "1", 0)
    rows = rows_of(dense, {("0.8", "magnitude"): [job], ("0.8", "FLAP"): [peer]})
    assert [row["texts"][0]["of_dense"]["value"] > 0 for row in rows] == [True, True]
    assert table_of("tiny", dense, rows).row_count == 2


def test_a_cell_that_is_there_is_taken(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    way = Peer(choose, repair=False)
    first = maker.make(way, "FLAP", "0.8", 0)
    monkeypatch.setattr(Maker, "_made", None)  # nothing could be made now
    again = Maker(maker.subject, maker.out, maker.digest)
    assert again.make(way, "FLAP", "0.8", 0) == first
    assert again.place(way, "FLAP", "0.7", 0) != again.place(way, "FLAP", "0.8", 0)
    with pytest.raises(TypeError):
        again.make(way, "FLAP", "0.8", 1)


def test_other_calibration_samples_make_other_cells_of_peers(maker: Maker) -> None:
    way, fields = Peer(choose, repair=False), maker.subject.fields
    fewer = replace(maker.subject, fields={**fields, "calibration": {**fields["calibration"], "samples": 16}})
    other = Maker(fewer, maker.out, maker.digest)  # as if the default had changed in the core
    assert other.place(way, "FLAP", "0.8", 0) != maker.place(way, "FLAP", "0.8", 0)


def test_sources_decide_which_cells_are_old(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = ways_at("0.8")
    names = ("FLAP", "FLAP, our repair", "fisher-cg")
    before = {name: maker.place(ways[name], name, "0.8", 0) for name in names}
    source = cells._source
    monkeypatch.setattr(cells, "_source", lambda place: "new" if place == "pruning_core/recovery" else source(place))
    assert [maker.place(ways[name], name, "0.8", 0) == before[name] for name in names] == [True, False, False]


def test_the_dense_model_is_judged_as_by_its_own_loss(maker: Maker, case: Case) -> None:
    cell = maker.make(Dense(), "dense", "1", 0)
    own = cell["texts"]["words"]
    ids = torch.tensor([list(block) for block in maker.subject.judge.blocks["words"]])
    model = load_task_model(Path(maker.subject.fields["model"]), "text-generation", torch.device("cpu")).model
    loss = float(model(input_ids=ids, labels=ids).loss)
    assert sum(own["lost"]) / (12 * own["tokens"]) == pytest.approx(loss, rel=0.02)  # of bfloat16
    assert agreement(own, own) == 1
    assert len(own["cloze"]) == 12


def test_a_package_without_its_environment_has_a_reason(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "ENVIRONMENTS", maker.out / "nothing")
    package = ways_at("2:4")["llmcompressor: Wanda"]
    assert isinstance(package, Package)
    cell = maker.make(package, "llmcompressor: Wanda", "2:4", 0)
    assert cell["reason"] == "the environment of llmcompressor is not there: make peers PEERS=llmcompressor"
    assert not maker.place(package, "llmcompressor: Wanda", "2:4", 0).is_file()


def test_every_job_is_a_valid_request(maker: Maker) -> None:
    jobs = [(setting, way) for setting in SETTINGS for way in ways_at(setting).values() if isinstance(way, Core)]
    for setting, way in jobs:
        spec = PruneSpec.model_validate({**maker.subject.fields, **way.spec_fields(setting), "seed": 1})
        kept = {"2:4": 0.5, "50%": 0.5}.get(setting)
        asked = spec.all_targets[0].requested
        removed = spec.method.name in ("block-lasso", "admm-pattern")
        assert asked == pytest.approx(kept if kept is not None else 1 - float(setting) if removed else float(setting))


def test_a_ratio_and_its_interval_are_paired() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(900, 200, 48)  # blocks differ far more than models do
    dense = {"lost": hard.tolist(), "tokens": 255}
    own = {"lost": (hard + 255 * np.log(1.1) + rng.normal(0, 2, 48)).tolist(), "tokens": 255}
    found = ratio([own], [dense])
    assert found["value"] == pytest.approx(1.1, abs=0.005)
    assert 1.09 < found["low"] < found["value"] < found["high"] < 1.11
    assert ratio([dense], [dense]) == {"value": 1.0, "low": 1.0, "high": 1.0}
