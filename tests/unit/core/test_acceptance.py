"""The acceptance contract: a fresh process finds what the worker said, or the job says what it did not find."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.artifacts import fresh
from pruning_core.artifacts.acceptance import STEPS, Expectation, Prover, time_limit
from pruning_core.artifacts.probes import answer, make_probes
from pruning_core.data.read import read_rows
from pruning_core.errors import QualityFloorMissed, TargetMissed, Unloadable
from pruning_core.models.load import load_task_model
from pruning_core.report.report import Report, TargetReport
from pruning_core.run.floor import shares_that_hold
from pruning_core.run.pipeline import run
from pruning_core.run.verdict import rejection
from pruning_core.spec.artifacts import FLOOR_RESOLUTION, FLOOR_TRIALS
from pruning_core.spec.prune import LatencySpec
from tests import tiny


@pytest.fixture(scope="module")
def made(tiny_bert, tiny_sst2, tmp_path_factory):
    """A bundle, its spec and its report."""
    out = tmp_path_factory.mktemp("accepted") / "out"
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2)
    return out, spec, run(spec, out, device="cpu")


@pytest.mark.long
def test_the_report_says_what_the_fresh_process_found(made):
    _out, _spec, report = made
    found = report.acceptance
    assert found.loader == "remote_code"
    assert found.max_difference <= found.tolerance
    assert (found.parameters, found.bytes) == (report.parameters.pruned, report.bytes.pruned)
    assert {"torch", "transformers"} <= set(found.libraries)
    assert found.samples == 20


def _change_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"] * 1.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _add_a_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"smuggled": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})


def _break_the_config(folder):
    config = json.loads((folder / "config.json").read_text())
    config["coppice"]["linears"] = {}
    (folder / "config.json").write_text(json.dumps(config))


def _lose_the_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text("{")


def _need_coppice(folder):
    path = folder / "modeling_coppice.py"
    path.write_text("import pruning_core\n" + path.read_text())


def _change(folder, name, **entries):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _swap_the_labels(folder):
    _change(folder, "config.json", id2label={"0": "LABEL_1", "1": "LABEL_0"})


def _lower_the_case(folder):
    _change(folder, "tokenizer.json", normalizer={"type": "Lowercase"})


def _pad_on_the_left(folder):
    _change(folder, "tokenizer_config.json", padding_side="left")


def _add_a_template(folder):
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")


def _nothing(folder):
    pass


DAMAGES = {
    _nothing: None,
    _change_weights: "outputs that differ",
    _add_a_tensor: "counts",
    _break_the_config: "stock transformers cannot load or run it",
    _lose_the_tokenizer: "its tokenizer cannot be loaded",
    _need_coppice: "stock transformers cannot load or run it",
    _swap_the_labels: "classes are not named as the source's",
    _lower_the_case: "tokenizer makes other tokens than the source's",
    _pad_on_the_left: "tokenizer pads or cuts texts otherwise",
    _add_a_template: "chat template is not the source's",
}


@pytest.mark.long
def test_what_does_not_hold_is_found(made, tiny_bert, tiny_sst2, tmp_path):
    out, spec, report = made
    dense = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    probes = make_probes(read_rows(spec.task, "validation"), 32)
    whole = load_task_model(out, "text-classification", torch.device("cpu"))
    claim = Expectation(
        out, answer(whole, probes), report.parameters.pruned, report.bytes.pruned, onnx=False, measure_again=True
    )
    claims = []
    for damage in DAMAGES:
        folder = shutil.copytree(out, tmp_path / damage.__name__)
        damage(folder)
        claims.append(replace(claim, folder=folder))
    prover = Prover(dense, probes, LatencySpec(batch=2, length=16, repeats=3), trust_remote_code=True, seed=0)
    proofs = prover.prove(claims)
    for expected, proof in zip(DAMAGES.values(), proofs, strict=True):
        assert (proof.problem is None) == (expected is None), proof.problem
        assert expected is None or expected in proof.problem
        assert str(tmp_path) not in (proof.problem or "")
    again = proofs[0].acceptance.latency_ms
    assert (again.batch, again.length, again.repeats) == (2, 16, 3)
    assert again.dense > 0 < again.pruned
    refused = rejection(spec, [report], proofs[1:2])
    assert isinstance(refused, Unloadable)
    assert refused.code == "unloadable"


def test_a_latency_that_a_fresh_process_does_not_find_is_a_missed_target(made):
    _out, spec, report = made
    slow = report.latency_ms.model_copy(update={"dense": 1.0, "pruned": 0.9})
    outcome = report.model_copy(
        update={
            "target": TargetReport(metric="latency", requested=0.5, achieved=0.49, tolerance=0.05),
            "acceptance": report.acceptance.model_copy(update={"latency_ms": slow}),
        }
    )
    assert isinstance(rejection(spec, [outcome], []), TargetMissed)
    fast = slow.model_copy(update={"pruned": 0.54})
    accepted = outcome.model_copy(update={"acceptance": report.acceptance.model_copy(update={"latency_ms": fast})})
    assert rejection(spec, [accepted], []) is None


@pytest.mark.parametrize("floor", [{"kind": "absolute", "value": 1.0}, {"kind": "relative", "value": 1.0}])
@pytest.mark.long
def test_a_floor_that_is_missed_fails_with_the_candidate(floor, tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="features")
    task = {
        "type": "feature-extraction",
        "dataset": str(tiny.write_jsonl(tmp_path / "data")),
        "columns": {"text": ["text"]},
        "metric": "cosine",
    }
    spec = tiny.tiny_spec(model, tmp_path / "data", task=task, quality_floor=floor)
    with pytest.raises(QualityFloorMissed, match=r"the floor is cosine 1\.0000") as caught:
        run(spec, tmp_path / "out", device="cpu")
    written = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    assert caught.value.report == written
    assert written.target.achieved <= 0.5
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert "does not hold the floor" in (tmp_path / "out" / "report.html").read_text()


def test_a_floor_alone_finds_the_smallest_model_that_holds_it(tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="features")
    task = {
        "type": "feature-extraction",
        "dataset": str(tiny.write_jsonl(tmp_path / "data")),
        "columns": {"text": ["text"]},
        "metric": "cosine",
    }
    spec = tiny.tiny_spec(model, tmp_path / "data", task=task, quality_floor=0.97, target=None)
    seen = []
    report = run(spec, tmp_path / "out", device="cpu", on_progress=seen.append)
    assert report.quality.pruned >= 0.97
    assert report.target.metric == "macs"
    assert [progress.fraction for progress in seen] == pytest.approx(sorted(progress.fraction for progress in seen))
    # A model two steps of the search smaller does not hold the floor: this one is the smallest to within the resolution.
    smaller = {"metric": "macs", "keep": report.target.requested - 2 * FLOOR_RESOLUTION}
    with pytest.raises(QualityFloorMissed):
        run(
            tiny.tiny_spec(model, tmp_path / "data", task=task, quality_floor=0.97, target=smaller),
            tmp_path / "b",
            device="cpu",
        )


@pytest.mark.parametrize("threshold", [0.01, 0.2, 0.43, 0.77, 0.97])
def test_bisection_ends_beside_the_threshold(threshold):
    tried = []
    shares = shares_that_hold(lambda share: tried.append(share) or share >= threshold)
    assert 0 <= shares[0] - threshold <= FLOOR_RESOLUTION
    assert shares == sorted(shares)
    assert len(tried) <= FLOOR_TRIALS


def test_a_floor_that_nothing_holds_gives_the_mildest_that_was_tried():
    assert shares_that_hold(lambda _share: False) == [pytest.approx(1, abs=FLOOR_RESOLUTION)]


_ONNX_MISSING = """
import sys
sys.modules["onnxscript"] = None  # as if the exporter were not installed
from pathlib import Path
from pruning_core.errors import Unloadable
from pruning_core.run.pipeline import run
from tests import tiny
artifacts = {{"formats": ["safetensors", "onnx"], "strict": {strict}}}
spec = tiny.tiny_spec(Path(sys.argv[1]), Path(sys.argv[2]), artifacts=artifacts)
try:
    report = run(spec, Path(sys.argv[3]), device="cpu")
except Unloadable as error:
    print("refused:", error.message)
    report = error.report
print(report.onnx.status, report.warnings)
"""


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.long
def test_an_export_that_fails_is_told_and_the_rest_is_delivered(strict, tiny_bert, tiny_sst2, tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", _ONNX_MISSING.format(strict=strict), str(tiny_bert), str(tiny_sst2), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("refused: onnx cannot be delivered" in done.stdout) == strict
    assert "failed ('no ONNX graph: the exporter cannot express the model" in done.stdout
    assert (out / "model.safetensors").is_file()
    assert not (out / "onnx").exists()


_SMALL_DISK = """
import resource, sys
from pathlib import Path
from pruning_core.errors import StorageFull
from pruning_core.run.pipeline import run
from tests import tiny
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file can grow beyond this
try:
    run(tiny.tiny_spec(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[3]), device="cpu")
except StorageFull as error:
    print(error.message)
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_disk_that_fills_up_is_a_clear_error_and_leaves_nothing(tiny_bert, tiny_sst2, tmp_path):
    command = [sys.executable, "-c", _SMALL_DISK, str(tiny_bert), str(tiny_sst2), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("the disk is full; make room, nothing of the bundle was kept"), done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_proof_that_nobody_waits_for_is_given_up(tmp_path):
    (tmp_path / "request.json").write_text('{"checkpoints": []}')

    def prove(parent: int) -> tuple[int, bool]:
        result = tmp_path / f"{parent}.json"
        paths = [str(tmp_path / "request.json"), str(result), str(parent), str(tmp_path / "stage")]
        command = [sys.executable, "-P", fresh.__file__, *paths]
        return subprocess.run(command, check=False, timeout=60).returncode, result.exists()

    assert prove(os.getpid()) == (0, True)
    assert prove(1) == (1, False), "its parent was gone before it could arrange to go with it"


_HANGS = """
import json, subprocess, sys, time
request, stage = sys.argv[1], sys.argv[4]
sys.stdout.write(str(sys.stdin.read()) + "x" * 4_000_000)  # input is at its end, and nobody reads as much output
sys.stdout.flush()
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({pids!r}, "w").write(str(grandchild.pid))
{reached}
time.sleep(600)
"""


def _is_there(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _prover(tiny_bert, **options):
    dense = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    return Prover(dense, (), LatencySpec(batch=1, length=8, repeats=3), trust_remote_code=False, seed=0, **options)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("", "stopped after 4 s, while it imported its libraries"),
        ("latency 2 3", "stopped after 4 s, while it measured the latency again, checkpoint 2 of 3"),
        ("onnx 1 1", "stopped after 4 s, while onnxruntime ran its graph"),
    ],
)
@pytest.mark.long
def test_a_proof_that_hangs_is_ended_with_all_that_it_started_and_says_where(word, says, tiny_bert, tmp_path, monkeypatch):
    script, pids = tmp_path / "hangs.py", tmp_path / "pids"
    script.write_text(_HANGS.format(pids=str(pids), reached=f"open(stage, 'w').write({word!r})" if word else ""))
    monkeypatch.setattr(fresh, "__file__", str(script))
    claim = Expectation(tmp_path, (), 1, 1, onnx=False, measure_again=False)
    began = time.monotonic()
    proofs = _prover(tiny_bert, limit_s=4.0).prove([claim, claim])
    assert time.monotonic() - began < 60
    assert [says in proof.problem for proof in proofs] == [True, True], proofs[0].problem
    assert all(proof.acceptance is None for proof in proofs)
    assert not _is_there(int(pids.read_text()))


def test_a_proof_tells_where_it_is(tiny_bert, tmp_path, monkeypatch):
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time\n"
        "for said in ('transformers 1 2', 'half', 'tokenizer 2 2'):\n"
        "    open(sys.argv[4], 'w').write(said); time.sleep(1.6)\n"
        "open(sys.argv[2], 'w').write('[]')\n"
    )
    monkeypatch.setattr(fresh, "__file__", str(script))
    claim, steps = Expectation(tmp_path, (), 1, 1, onnx=False, measure_again=False), []
    _prover(tiny_bert).prove([claim, claim], steps.append)
    assert steps == [3, STEPS + 1]


def test_a_proof_without_an_answer_for_every_checkpoint_does_not_hold(tiny_bert, tmp_path, monkeypatch):
    script = tmp_path / "short.py"
    script.write_text('import sys; open(sys.argv[2], "w").write(\'[{"error": "E", "stage": "latency"}]\')')
    monkeypatch.setattr(fresh, "__file__", str(script))
    claim = Expectation(tmp_path, (), 1, 1, onnx=False, measure_again=False)
    proofs = _prover(tiny_bert).prove([claim, claim])
    assert {proof.problem for proof in proofs} == {"the fresh process that was to load it answered for 1 of 2 checkpoints"}


def test_the_time_limit_is_by_what_the_run_took_and_generous(made):
    seconds = made[2].seconds
    assert time_limit(seconds) == 600
    slow = seconds.model_copy(update={"by_stage": dict.fromkeys(seconds.by_stage, 50.0)})
    assert time_limit(slow) == 20 * 4 * 50
