"""Cells of the table: each is a file, named by what it is and by the digest of all that it depends on, and made once."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

import torch

from benchmarks.decoders.case import Case
from benchmarks.decoders.elsewhere import running
from benchmarks.decoders.judging import Judge, Numbers
from benchmarks.decoders.peers.slicegpt import Sliced, macs_at
from benchmarks.decoders.peers.structure import priced, sizes
from benchmarks.decoders.repaired import student_of
from benchmarks.decoders.texts import digest_of
from benchmarks.decoders.ways import Core, Dense, Package, Peer, Way
from pruning_core.errors import PruningError
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel

_ROOT = Path(__file__).resolve().parents[2]
# Rooms of the core that decide what a job makes of a decoder; those of a repair alone; and what peers are made of.
_JOB = (
    *("arch", "budgets.py", "data", "engines", "evidence", "linalg", "machine", "methods", "patterns", "recovery", "run"),
    *("search", "spec", "stats", "tasks", "training"),
)
_REPAIR = ("arch", "evidence", "linalg", "recovery", "stats")
_FAILED = "reason"


@dataclass(frozen=True, slots=True)
class Subject:
    """A dense model, and what it is calibrated and judged on.

    Attributes:
        name: Short name.
        fields: Fields of a spec: model, task, data, and calibration where it is not the default.
        judge: Blocks of all texts.
    """

    name: str
    fields: dict[str, Any]
    judge: Judge

    @property
    def digest(self) -> str:
        """Return the digest of the weights, of the calibration texts and of all blocks."""
        found = hashlib.sha256(json.dumps({**self.fields, "model": "", "data": ""}, sort_keys=True).encode())
        model, data = Path(self.fields["model"]), Path(self.fields["data"])
        for path in (*sorted(model.glob("*.safetensors")), data / "train.jsonl"):
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        for name, blocks in sorted(self.judge.blocks.items()):
            found.update(f"{name} {digest_of(blocks)}".encode())
        return found.hexdigest()


@dataclass(slots=True)
class Maker:
    """Makes the cells of one subject.

    Attributes:
        subject: The dense model and its texts.
        out: Folder of all cells, and of what is fetched and made for them.
        digest: The subject's.
        cases: The calibration samples of each seed, made when a peer first needs them.
    """

    subject: Subject
    out: Path
    digest: str
    cases: dict[int, Case] = field(default_factory=dict[int, Case])

    def place(self, way: Way, name: str, setting: str, seed: int) -> Path:
        """Return the file of a cell."""
        # A job draws its samples by the sources that it depends on; a peer is given them.
        tokens = self.case(seed).evidence.calibration.fingerprint if isinstance(way, Peer | Package) else None
        own = [self.digest, tokens, _depends_on(way, setting), seed, _source("benchmarks/decoders/judging.py")]
        depends = json.dumps(own)
        digest = hashlib.sha256(depends.encode()).hexdigest()[:12]
        return self.out / "cells" / self.subject.name / f"{name}, {setting}, seed {seed}, {digest}.json".replace("/", "-")

    def stale(self, name: str, setting: str, seed: int) -> list[Path]:
        """Return the files of a cell whatever it depended on, the newest first."""
        found = (self.out / "cells" / self.subject.name).glob(f"{name}, {setting}, seed {seed}, ????????????.json")
        return sorted(found, key=lambda path: -path.stat().st_mtime)

    def make(self, way: Way, name: str, setting: str, seed: int) -> Numbers:
        """Return the numbers of a cell; a cell that is there is taken.

        What cannot be made, such as a package whose environment is not there, has a reason in place of numbers and is tried
        again by the next run.
        """
        place = self.place(way, name, setting, seed)
        if place.is_file():
            return json.loads(place.read_text(encoding="utf-8"))
        cell: Numbers = {"subject": self.subject.name, "way": name, "setting": setting, "seed": seed}
        began = time.perf_counter()
        try:
            cell |= self._made(way, setting, seed)
        except (PruningError, running.Failed, ValueError) as error:
            return {**cell, _FAILED: str(error)}
        cell["seconds"]["all"] = time.perf_counter() - began
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(".partial")
        partial.write_text(json.dumps(cell) + "\n", encoding="utf-8")
        partial.rename(place)
        return cell

    def _made(self, way: Way, setting: str, seed: int) -> Numbers:
        match way:
            case Dense():
                judged = self.subject.judge.judged(self._loaded(Path(self.subject.fields["model"])))
                return {"macs": 1.0, "texts": judged["texts"], "seconds": {"judge": judged["seconds"]}}
            case Core():
                return self._by_job(way, setting, seed)
            case Peer():
                return self._by_peer(way, float(setting), seed)
            case Package():
                return self._elsewhere(way, setting, seed)
            case _:
                assert_never(way)

    def _by_job(self, way: Core, setting: str, seed: int) -> Numbers:
        """Run a job, with as little as there can be of what is not judged here: its own evaluation and its latencies."""
        fields = {
            **self.subject.fields,
            **way.spec_fields(setting),
            "seed": seed,
            "evaluation": {"max_samples": 2},
            "latency": {"repeats": 3, "batch": 1, "length": 32},
        }
        with tempfile.TemporaryDirectory(dir=self.out) as scratch:
            bundle = Path(scratch) / "bundle"
            # No engine runs: their constraints are what is asked for.
            report = run(PruneSpec.model_validate(fields), bundle, device="cpu", engines=Path(scratch) / "no-engines")
            judged = self.subject.judge.judged(self._loaded(bundle))
        pattern = report.pattern
        macs = report.macs.pruned if pattern is None else pattern.nonzero_macs
        repairs = [own.status for layer in report.layers for own in (layer.attention, layer.ffn)]
        return {
            "macs": macs / report.macs.dense,
            "fingerprint": report.data.fingerprint,
            "tokens": report.data.tokens,
            "heads": [layer.kept_heads for layer in report.layers],
            "neurons": [layer.kept_neurons for layer in report.layers],
            "repairs": {status: repairs.count(status) for status in sorted(set(repairs))},
            "texts": judged["texts"],
            "seconds": {**report.seconds.by_stage, "judge": judged["seconds"]},
        }

    def _by_peer(self, way: Peer, keep: float, seed: int) -> Numbers:
        case = self.case(seed)
        began, known = time.perf_counter(), set(case.kept)
        decided, shared = way.choose(case, keep)
        # Statistics that serve several shares count for each.
        chosen = time.perf_counter() - began + (shared if set(case.kept) == known else 0)
        began = time.perf_counter()
        student = student_of(case, decided, repair=way.repair)
        built = time.perf_counter() - began
        groups, length = case.evidence.dense.groups, case.evidence.calibration.mean_length
        if isinstance(decided, Sliced):
            macs, shape = macs_at(groups, length, decided.first.shape[1]), {"width": decided.first.shape[1]}
        else:
            counts = decided.mask.counts()
            macs, shape = decided.macs(groups, length), {"heads": counts[::2], "neurons": counts[1::2]}
        judged = self.subject.judge.judged(student)
        return {
            "macs": macs / priced(groups, sizes(groups), length),
            "fingerprint": case.evidence.calibration.fingerprint,
            "tokens": case.evidence.calibration.tokens,
            **shape,
            "texts": judged["texts"],
            "seconds": {"choose": chosen, "build": built, "judge": judged["seconds"]},
        }

    def _elsewhere(self, way: Package, setting: str, seed: int) -> Numbers:
        case = self.case(seed)
        with tempfile.TemporaryDirectory(dir=self.out) as scratch:
            found = running.pruned(way, case, setting, Path(scratch), seed)
            judged = self.subject.judge.judged(self._loaded(found.folder))
        return {**found.numbers, "texts": judged["texts"], "seconds": {**found.seconds, "judge": judged["seconds"]}}

    def case(self, seed: int) -> Case:
        """Return the calibration samples of a seed."""
        if seed not in self.cases:
            self.cases[seed] = Case.of({**self.subject.fields, "seed": seed}, self.out)
        return self.cases[seed]

    def _loaded(self, folder: Path) -> TaskModel:
        return load_task_model(folder, self.subject.fields["task"]["type"], torch.device("cpu"))


def _depends_on(way: Way, setting: str) -> list[Any]:
    """Return what a way's numbers depend on beside the subject: its options, and the sources that it runs."""
    match way:
        case Dense():
            return ["dense"]
        case Core():
            return [way.spec_fields(setting), *(_source(f"pruning_core/{room}") for room in _JOB)]
        case Peer():
            module = way.choose.__module__.replace(".", "/")
            peers = [_source(f"{own}.py") for own in (module, "benchmarks/decoders/peers/statistics")]
            repair = [_source(f"pruning_core/{room}") for room in _REPAIR] if way.repair else []
            return [peers, repair, _source("benchmarks/decoders/repaired.py"), setting]
        case Package():
            sources = [_source(f"benchmarks/decoders/elsewhere/{name}") for name in (way.script, "common.py", "peers.txt")]
            return [sources, way.options, setting]
        case _:
            assert_never(way)


def _source(place: str) -> str:
    """Return the digest of a source file, or of all of a folder."""
    path = _ROOT / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    found = hashlib.sha256()
    for own in files:
        found.update(own.read_bytes())
    return found.hexdigest()


def agreement(dense: Numbers, own: Numbers) -> float:
    """Return the share of positions at which both models find the same next token likeliest."""
    pairs = [a == b for x, y in zip(dense["likeliest"], own["likeliest"], strict=True) for a, b in zip(x, y, strict=True)]
    return sum(pairs) / len(pairs)
