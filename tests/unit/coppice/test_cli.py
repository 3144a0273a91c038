"""The command line: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app.keys.records import Scope
from coppice import console
from coppice.cli import app
from coppice.client import Client
from coppice.commands.healed import healed
from coppice.commands.options import JobOptions
from coppice.errors import ApiError
from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.report.report import Report
from tests.servers import free_port
from tests.unit.app.sample import REPORT
from tests.unit.coppice.conftest import FILES, Live

STAGES = ("load", "calibrate", "score", "search", "recover", "materialise", "evaluate", "latency", "bundle")
GOOD = {"--model": "org/name", "--task": "glue/sst2", "--sparsity": "0.5"}


def call(*arguments: str | Path, input: str | None = None):  # noqa: A002 - as the runner calls it
    return CliRunner().invoke(app, list(map(str, arguments)), env={"TERM": "dumb", "COLUMNS": "200"}, input=input)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a process: where the service of the test logs to this one's stdout."""
    line = [sys.executable, "-m", "coppice.cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=100)


def words(options: dict[str, str]) -> list[str]:
    return [word for pair in options.items() for word in pair]


@pytest.mark.parametrize(
    "path",
    [
        [],
        ["run"],
        ["check"],
        ["prune"],
        ["jobs"],
        ["report"],
        ["keys"],
        ["serve"],
        ["worker"],
        ["migrate"],
        ["doctor"],
        ["verify"],
        ["push"],
    ],
)
def test_every_command_explains_itself(path: list[str]) -> None:
    told = call(*path, "--help")
    assert told.exit_code == 0
    assert "Usage:" in told.stdout
    if path and path[0] in ("run", "check", "prune", "serve"):
        assert "Example" in told.stdout
    if not path or path[0] in ("run", "prune"):
        assert "Exit codes" in told.stdout


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"--sparsity": "1.5"}, "--sparsity must be > 0 and < 1, got 1.5"),
        ({"--macs-keep": "1.5"}, "--macs-keep must be > 0 and < 1, got 1.5"),
        ({"--sparsity": "0"}, "must be > 0 and < 1, got 0"),
        ({"--sparsity": "-1"}, "must be > 0 and < 1, got -1"),
        ({"--sparsity": "nan"}, "must be > 0 and < 1, got nan"),
        ({"--sparsity": "half"}, "valid number"),
        ({"--task": "glue/nothing"}, "Named tasks are glue/cola"),
        ({"--method": "magic"}, "known methods are fisher-cg, admm-pattern, block-lasso, magnitude, random"),
        ({"--heal": "distill"}, "--heal must be 'none' or 'distil'; did you mean distil?"),
        ({"--heal-minutes": "0"}, "--heal-minutes must be greater than 0"),
        ({"--heal": "none", "--heal-minutes": "5"}, "set kind to distil"),
        ({"--samples": "1"}, "--samples must be greater than or equal to 8"),
        ({"--seed": "-1"}, "greater than or equal to 0"),
        ({"--model": "/nothing/here"}, "--model: no such folder"),
    ],
)
def test_run_says_what_is_wrong_with_its_input(tmp_path: Path, changes: dict[str, str], sentence: str) -> None:
    told = call("run", *words(GOOD | changes), "--out", tmp_path / "out", "--json")
    assert told.exit_code == 2, told.output
    assert sentence in told.stderr
    assert told.stdout == ""
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [("--model", "model is required: give --model"), ("--task", "--task"), ("--sparsity", "one of --sparsity, --macs-keep")],
)
def test_run_says_what_is_missing(tmp_path: Path, left_out: str, sentence: str) -> None:
    told = call("run", *words({name: value for name, value in GOOD.items() if name != left_out}), "--out", tmp_path / "out")
    assert (told.exit_code, sentence in told.stderr) == (2, True)


@pytest.mark.parametrize("name", ["run", "prune"])
def test_a_folder_with_files_is_refused(name: str, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    options = GOOD | {"--model": str(tiny_bert), "--data": str(tiny_sst2)}
    told = call(name, *words(options), "--out", tmp_path)  # prune: before it looks for a service, and there is none
    assert told.exit_code == 2
    assert "must not exist, or be empty" in told.stderr
    assert (tmp_path / "mine").read_text() == "precious"


def test_what_a_run_warned_of_is_printed_with_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    console.show(Report.model_validate(REPORT | {"warnings": ["only 12 training rows [of 512]"]}))
    shown = capsys.readouterr().out
    assert "note: only 12 training rows [of 512]" in shown
    assert "float32" in shown


def test_a_spec_file_that_is_no_json_object_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[1]", "3"):
        (tmp_path / "spec.json").write_text(text)
        told = call("run", "--spec", tmp_path / "spec.json", "--out", tmp_path / "out")
        assert told.exit_code == 2
        assert "JSON" in told.stderr


def test_what_is_wrong_with_a_spec_file_is_said_with_its_place(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    for content, says in (
        (b'{\n  "model": "a/b",\n}', "in line 3, column 1"),
        (b"\xff", "not UTF-8"),
        (b'{"model": "a/b", "task": "glue/sst2", "sparsity": 2}', "sparsity in SPEC must be > 0 and < 1"),
        (
            b'{"model": "a/b", "task": "glue/sst2", "sparsity": 0.5, "sead": 1}',
            "sead in SPEC is no known field; did you mean seed?",
        ),
    ):
        spec.write_bytes(content)
        told = call("run", "--spec", spec, "--out", tmp_path / "out")
        assert (told.exit_code, says.replace("SPEC", str(spec)) in told.stderr) == (2, True), told.stderr
    assert "cannot be read (No such file" in call("run", "--spec", tmp_path / "none", "--out", tmp_path / "out").stderr


def test_the_version_is_that_of_the_distribution() -> None:
    assert call("--version").stdout == f"coppice {version('coppice-prune')}\n"


def test_a_pattern_means_its_method_and_its_target() -> None:
    spec = JobOptions(model="org/name", task="glue/sst2", pattern="4:8").to_spec()
    assert isinstance(spec.method, AdmmPattern)
    assert spec.method.pattern == "4:8"
    assert [target.metric for target in spec.all_targets] == ["pattern"]


def test_data_is_named_by_its_splits_its_share_and_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "here").mkdir()
    of_type = JobOptions(
        model="org/name",
        task="text-classification",
        data="org/data@v1",
        text=["a"],
        label="y",
        train_split="fit",
        validation_split="judge",
        sparsity=[0.5],
    ).to_spec()
    assert (of_type.task.dataset, of_type.task.revision) == ("org/data", "v1")
    assert (of_type.task.train_split, of_type.task.validation_split) == ("fit", "judge")
    by_name = JobOptions(model="org/name", task="glue/sst2", data="org/here", validation_share=0.2, sparsity=[0.5]).to_spec()
    assert by_name.task.dataset == str(tmp_path / "org" / "here")
    assert (by_name.task.name, by_name.task.validation_share) == ("glue/sst2", 0.2)
    revised = JobOptions(model="org/name", task="glue/sst2", data_revision="v2", sparsity=[0.5]).to_spec()
    assert (revised.task.dataset, revised.task.revision) == ("nyu-mll/glue", "v2")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"--validation-share": "0.9"}, "--validation-share must be less than or equal to 0.5"),
        ({"--data": "org/data@v1", "--data-revision": "v2"}, "the revision is named twice"),
        ({"--data": "org/data@"}, "org/name@revision"),
    ],
)
def test_what_is_wrong_with_data_is_said(tmp_path: Path, changes: dict[str, str], sentence: str) -> None:
    told = call("run", *words(GOOD | changes), "--out", tmp_path / "out")
    assert told.exit_code == 2
    assert sentence in told.stderr


def test_a_pattern_keeps_what_the_spec_file_says_of_its_method(tmp_path: Path) -> None:
    method = {"name": "admm-pattern", "pattern": "2:4", "iterations": 30}
    (tmp_path / "spec.json").write_text(json.dumps({"model": "org/name", "task": "glue/sst2", "method": method}))
    options = JobOptions(spec=tmp_path / "spec.json", method="admm-pattern", pattern="unstructured", sparsity=[0.7])
    spec = options.to_spec()
    assert isinstance(spec.method, AdmmPattern)
    assert (spec.method.pattern, spec.method.iterations) == ("unstructured", 30)


def test_layers_without_attention_are_asked_for_with_the_engines_that_take_them(capsys):
    asked = {"model": "org/name", "data": "org/texts", "task": "text-generation", "text": ["line"], "macs_keep": [0.7]}
    method = JobOptions(**asked, drop_attention=True, engines=["mlx"]).to_spec().method
    assert (method.name, method.drops_attention) == ("fisher-cg", True)
    with pytest.raises(typer.Exit):
        JobOptions(**asked, drop_attention=True).to_spec()
    said = " ".join(capsys.readouterr().err.split())
    assert "--drop-attention: layers without attention are written in --layout serve alone, and this is per_layer" in said


def test_a_preset_is_of_the_method_that_is_named_and_keeps_a_spec_files(tmp_path, capsys):
    (tmp_path / "spec.json").write_text('{"model": "org/name", "task": "glue/sst2", "method": "block-lasso", "sparsity": 0.5}')
    of_file = JobOptions(spec=tmp_path / "spec.json", preset="paper").to_spec()
    assert (of_file.method.name, of_file.preset) == ("block-lasso", "paper")
    named = JobOptions(model="org/name", task="glue/sst2", method="admm-pattern", preset="paper").to_spec()
    assert (named.method.name, named.method.pattern, named.preset) == ("admm-pattern", "2:4", "paper")
    assert JobOptions(model="org/name", task="glue/sst2", pattern="4:8", preset="paper").to_spec().preset == "paper"
    for options, said in (
        ({"method": "admm-pattern", "tier": "one-shot"}, "preset paper sets --tier to trained, got one-shot: leave --tier out"),
        ({"preset": "mine", "sparsity": [0.5]}, "--preset: fisher-cg has no such preset; it has default, paper"),
    ):
        with pytest.raises(typer.Exit):
            JobOptions(**{"model": "org/name", "task": "glue/sst2", "preset": "paper"} | options).to_spec()
        assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pattern", "5:4"], "must keep at least 1 and at most 3 of the 4 weights of a block, got 5"),
        (["--pattern", "unstructured"], "pattern unstructured needs a sparsity"),
        (["--pattern", "2:4", "--macs-keep", "0.5"], "admm-pattern keeps every shape"),
        (["--pattern", "2:4", "--sparsity", "0.7"], "pattern 2:4 means a sparsity of 0.5"),
        (["--pattern", "2:4", "--method", "magnitude", "--sparsity", "0.5"], "pattern is no known field"),
    ],
)
def test_a_pattern_that_does_not_fit_is_explained(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    told = call("run", "--model", "org/name", "--task", "glue/sst2", *arguments, "--out", tmp_path / "out")
    assert told.exit_code == 2
    assert sentence in " ".join(told.stderr.split())


@pytest.mark.long
def test_run_prints_a_table_and_options_override_the_spec_file(tiny_bert: Path, tiny_sst2: Path, tmp_path: Path) -> None:
    spec = {
        "model": "overridden/model",
        "task": "glue/sst2",
        "sparsity": 0.2,
        "calibration": {"samples": 512, "max_length": 32},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
        "method": "magnitude",
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    options = {"--spec": str(tmp_path / "spec.json"), "--model": str(tiny_bert), "--data": str(tiny_sst2)}
    options |= {
        "--macs-keep": "0.5",
        "--sparsity": "0.9",
        "--samples": "32",
        "--seed": "5",
        "--out": str(tmp_path / "out"),
        "--device": "cpu",
    }
    told = subprocess.run(
        [sys.executable, "-m", "coppice.cli", "run", *words(options)], capture_output=True, text=True, check=False, timeout=200
    )
    assert told.returncode == 0, told.stderr
    assert "parameters" in told.stdout
    assert "note: --sparsity is not used beside --macs-keep" in told.stderr
    stages = [line.split()[-1] for line in told.stderr.splitlines() if line.endswith(STAGES)]
    assert stages[:2] == ["load", "calibrate"], "without a terminal there is a line for every stage"
    assert len(stages) == len(set(stages))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["target"]["metric"], report["target"]["requested"], report["seed"]) == ("macs", 0.5, 5)
    assert (report["method"], report["data"]["samples"]) == ("magnitude", 32)


def test_the_options_of_healing_lie_over_those_of_the_spec_file() -> None:
    of_file = {"kind": "masks", "heal": {"kind": "distil", "hidden": 1, "minutes": 3}}
    assert healed(JobOptions(), of_file) == {}
    assert healed(JobOptions(heal="distil"), None) == {"recovery": {"heal": {"kind": "distil"}}}
    assert healed(JobOptions(heal_minutes=5), None) == {"recovery": {"heal": {"kind": "distil", "minutes": 5}}}
    over = {"kind": "masks", "heal": {"kind": "distil", "hidden": 1, "minutes": 5}}
    assert healed(JobOptions(heal_minutes=5), of_file) == {"recovery": over}
    assert healed(JobOptions(heal="none"), of_file) == {"recovery": {"kind": "masks", "heal": {"kind": "none"}}}


def test_prune_submits_waits_and_downloads(live: Live, tmp_path: Path) -> None:
    threading.Thread(target=live.succeed).start()
    told = command("prune", *_job(live, tmp_path), "--url", live.url, "--out", tmp_path / "bundle", "--json")
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert document["status"] == "succeeded"
    assert document["bundle"] == str(tmp_path / "bundle")
    assert document["report"]["target"]["achieved"] == 0.501
    assert (tmp_path / "bundle" / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_prune_fails_as_its_job_does(live: Live, tmp_path: Path) -> None:
    threading.Thread(target=live.fail).start()
    told = command("prune", *_job(live, tmp_path), "--url", live.url, "--out", tmp_path / "bundle", "--json")
    assert told.returncode == 1
    assert "too coarse" in told.stderr
    assert told.stdout == ""
    assert not (tmp_path / "bundle").exists()


def test_prune_passes_on_what_the_service_refuses(live: Live, tmp_path: Path) -> None:
    told = call("prune", *words(GOOD | {"--model": "/etc"}), "--url", live.url, "--out", tmp_path / "bundle")
    assert told.exit_code == 2
    assert "COPPICE_ALLOWED_ROOTS" in told.stderr


def test_jobs_lists_shows_cancels_and_tells_events(live: Live) -> None:
    with Client(live.url) as client:
        job = client.submit(live.spec)
    at = ("--url", live.url)
    assert [item["id"] for item in json.loads(call("jobs", "list", *at, "--json").stdout)] == [job.id]
    for width, environment in ((80, {"FORCE_COLOR": "1"}), (240, {})):
        listed = CliRunner().invoke(
            app, ["jobs", "list", *at, "--status", "queued"], env={"TERM": "dumb", "COLUMNS": "80"} | environment
        )
        assert len(listed.stdout.splitlines()) == 2, "one line a job"
        assert f"{job.id}  queued" in listed.stdout
        assert max(map(len, listed.stdout.splitlines())) <= width
    assert json.loads(call("jobs", "show", job.id, *at, "--json").stdout)["status"] == "queued"
    assert "queued" in call("jobs", "show", job.id, *at).stdout
    cancelled = call("jobs", "cancel", job.id, *at)
    assert (cancelled.exit_code, "cancelled" in cancelled.stdout) == (0, True)
    assert call("jobs", "cancel", job.id, *at).exit_code == 0, "cancelling twice is once"
    events = call("jobs", "events", job.id, *at)
    assert events.exit_code == 0
    assert [kind in events.stdout for kind in ("job.queued", "job.cancelled")] == [True, True]
    unknown = call("jobs", "show", "job_nothing", *at)
    assert (unknown.exit_code, "there is no job job_nothing here" in unknown.stderr) == (2, True)


def test_prune_can_leave_at_once_and_find_its_job_again(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url)
    ids = {command("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", "nightly").stdout.strip() for _ in range(2)}
    assert ids == {"nightly"}
    planned = json.loads(command("prune", *_job(live, tmp_path), *at, "--plan", "--json").stdout)
    assert planned["predicted"]["parameters"]["pruned"] > 0
    assert len(json.loads(call("jobs", "list", *at, "--json").stdout)) == 1


def test_a_job_is_derived_from_another(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url)
    call("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", "one")
    planned = json.loads(command("derive", "one", "--macs-keep", "0.4", *at, "--plan", "--json").stdout)
    assert planned["spec"]["target"] == {"metric": "macs", "keep": 0.4, "tolerance": 0.01}
    made = command("derive", "one", "--layout", "stock", "--tolerance", "0.05", *at, "--no-wait").stdout.strip()
    with Client(live.url) as client:
        parent, job = client.get("one"), client.get(made)
        assert [own.id for own in client.list(metadata={"derived_from": "one"})] == [made]
    assert job.spec["artifacts"] == parent.spec["artifacts"] | {"layout": "stock"}
    assert job.spec["target"] == parent.spec["target"] | {"tolerance": 0.05}
    threading.Timer(0.3, lambda: [live.succeed() for _ in range(3)]).start()
    fetched = call("derive", "one", "--sparsity", "0.3", *at, "--out", tmp_path / "out")
    assert (fetched.exit_code, (tmp_path / "out").is_dir()) == (0, True), fetched.output


def test_what_cannot_be_derived_is_told_before_anything_is_done(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url)
    call("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", "one")
    for options, says in [
        (("--no-wait",), "say what is to be different"),
        (("--sparsity", "0.3"), "give --out"),
        (("--sparsity", "1.5", "--no-wait"), "--sparsity must be"),
        (("--no-wait", "--sparsity", "0.3", "--fail-if", "drop>0"), "needs --wait"),
        (("--layout", "serve", "--no-wait"), "layout serve follows the engines"),
    ]:
        told = call("derive", "one", *options, *at)
        assert (told.exit_code, says in told.stderr) == (2, True), told.stderr
    unknown = call("derive", "two", "--sparsity", "0.3", "--no-wait", *at)
    assert (unknown.exit_code, "there is no job two" in unknown.stderr) == (2, True)
    with Client(live.url) as client:
        assert len(client.list()) == 1


def test_folders_of_this_host_can_be_sent_along(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url, "--no-wait", "--upload")
    job_id = command("prune", *_job(live, tmp_path), *at).stdout.strip()
    with Client(live.url) as client:
        spec = client.get(job_id).spec
    assert spec["model"].startswith("mdl_")
    assert spec["task"]["dataset"].startswith("dst_")
    assert spec["target"] == live.spec.model_dump(mode="json")["target"]


@pytest.mark.parametrize(
    ("condition", "code", "says"),
    [
        ("drop>0.5", 0, ""),
        ("speedup<1.5", 0, ""),
        ("drop>0.001", 4, "drop>0.001 (drop is 0.01)"),
        ("quality<=0.9", 4, "quality<=0.9"),
        ("drop", 2, "is no condition"),
        ("import os>1", 2, "is no condition"),
        ("colour>1", 2, "give one such as 'drop>0.01'"),
    ],
)
def test_a_pipeline_fails_on_its_own_condition(live: Live, tmp_path: Path, condition: str, code: int, says: str) -> None:
    at = ("--url", live.url)
    call("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", "one")
    live.succeed()
    told = call("report", "one", *at, "--fail-if", condition)
    assert (told.exit_code, says in told.stderr) == (code, True), told.output
    pruned = call("prune", *_job(live, tmp_path), *at, "--job-id", "one", "--out", tmp_path / "out", "--fail-if", condition)
    assert (pruned.exit_code, says in pruned.stderr) == (code, True), pruned.output
    assert (tmp_path / "out").exists() == (code != 2), "a wrong condition is said before anything is done"


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    assert "give --out" in call("prune", *words(GOOD)).stderr
    assert "needs --wait" in call("prune", *words(GOOD), "--no-wait", "--fail-if", "drop>0").stderr
    assert "KEY=VALUE" in call("jobs", "list", "--metadata", "run").stderr


def test_logs_follow_a_job_to_its_end(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url)
    call("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", "one")
    threading.Timer(0.3, live.fail).start()
    told = command("jobs", "logs", "one", *at, "--follow", "--json")
    assert [json.loads(line)["type"] for line in told.stdout.splitlines()] == ["job.queued", "job.started", "job.failed"]
    assert "queued" in call("jobs", "retry", "one", *at).stdout
    assert "job.retried" in call("jobs", "logs", "one", *at).stdout
    assert call("jobs", "retry", "one", *at).exit_code == 2


@pytest.mark.long
def test_a_tenant_is_deleted_on_the_host_and_by_an_operator(guarded: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    guarded.key("acme")
    guarded.key("globex")
    monkeypatch.setenv("COPPICE_API_KEY", guarded.key("operator", Scope.ADMIN))
    at = ("--url", guarded.url)
    assert "globex" in call("tenants", "list", *at).stdout
    asked = call("tenants", "delete", "acme", *at, input="n\n")
    assert (asked.exit_code, "for ever" in asked.stderr) == (1, True)
    done = command("tenants", "delete", "acme", *at, "--yes", "--json")
    assert json.loads(done.stdout)["deleted"] == {"webhooks": 0, "keys": 1}, done.stderr
    missing = call("tenants", "delete", "nobody", *at, "--yes")
    assert (missing.exit_code, "nothing of a tenant nobody" in missing.stderr) == (2, True)
    assert call("tenants", "delete", "no/body", *at, "--yes").exit_code == 2
    environment = os.environ | {"COPPICE_DATA_DIR": str(guarded.scratch / "data")}
    line = [sys.executable, "-m", "coppice.cli", "tenants", "delete", "globex", "--yes"]
    here = subprocess.run(line, capture_output=True, text=True, check=False, timeout=100, env=environment)
    assert (here.returncode, here.stdout.strip()) == (0, "globex: deleted, with 0 webhooks, 1 keys"), here.stderr


def test_many_jobs_are_cancelled_and_the_queue_is_paused(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url)
    for name in ("one", "two"):
        call("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", name, "--max-attempts", "1", "--timeout-s", "60")
    with Client(live.url) as client:
        assert (client.get("one").max_attempts, client.get("one").timeout_s) == (1, 60)
    assert "may be at most" in call("prune", *_job(live, tmp_path), *at, "--no-wait", "--timeout-s", "1e9").stderr
    assert "paused: 0 running, 2 waiting; nothing runs" in call("queue", "pause", *at).stdout
    assert "the queue is paused" in call("jobs", "show", "one", *at).stderr
    assert "draining" in call("queue", "drain", *at).stdout
    assert "open: 0 running" in call("queue", "resume", *at).stdout
    refused = call("jobs", "cancel-all", *at)
    assert (refused.exit_code, "--all must be given" in refused.stderr) == (2, True), refused.stderr
    assert "2 jobs are like that" in call("jobs", "cancel-all", "--all", "--dry-run", *at).stdout
    assert "2 of 2 cancelled" in call("jobs", "cancel-all", "--status", "queued", *at).stdout
    assert "0 of 0 queued again" in call("jobs", "retry-all", "--all", *at).stdout


@pytest.mark.long
def test_jobs_are_deleted_by_name(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url)
    call("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", "one")
    claim = live.claim()
    refused = call("jobs", "delete", "one", *at)
    assert (refused.exit_code, "cancel it" in refused.stderr) == (2, True)
    threading.Timer(3, live.confirm_cancelled, (claim,)).start()
    done = command("jobs", "delete", "one", *at, "--cancel")
    assert (done.returncode, done.stdout) == (0, "one: deleted\n"), done.stderr
    missing = call("jobs", "delete", "one", *at)
    assert (missing.exit_code, "there is no job one here" in missing.stderr) == (2, True)
    call("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", "two")
    assert call("jobs", "delete", "two", *at, "--cancel").exit_code == 0, "one that waits, and one that has ended"


@pytest.mark.long
def test_keys_are_made_listed_and_revoked_on_the_host(guarded: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"COPPICE_DATA_DIR": str(guarded.scratch / "data")}

    def here(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "coppice.cli", "keys", *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=100, env=os.environ | environment)

    made = here("create", "--tenant", "acme", "--name", "nightly")
    key = made.stdout.strip()
    assert (made.returncode, key[:4], len(key)) == (0, "cpk_", 47), made.stderr
    monkeypatch.setenv("COPPICE_API_KEY", key)
    assert call("jobs", "list", "--url", guarded.url).exit_code == 0
    (listed,) = json.loads(here("list", "--json").stdout)
    assert (listed["tenant"], listed["name"], listed["scopes"]) == ("acme", "nightly", ["jobs:read", "jobs:write"])
    assert here("revoke", listed["id"]).returncode == 0
    refused = call("jobs", "list", "--url", guarded.url)
    assert (refused.exit_code, "not known here, or was revoked" in refused.stderr) == (2, True)
    assert here("revoke", "key_nothing").returncode == 2
    assert here("create", "--tenant", "a b").returncode == 2


def test_keys_are_made_over_http_by_an_operator(guarded: Live) -> None:
    operator = {"COPPICE_API_KEY": guarded.key("operator", Scope.ADMIN)}

    def there(*arguments: str):
        return CliRunner().invoke(app, ["keys", *arguments, "--url", guarded.url], env=operator | {"TERM": "dumb"})

    made = json.loads(there("create", "--tenant", "acme", "--scope", "jobs:read", "--json").stdout)
    assert made["scopes"] == ["jobs:read"]
    assert made["id"] in there("list", "--json").stdout
    assert there("revoke", made["id"]).exit_code == 0
    with Client(guarded.url, api_key=made["key"]) as client, pytest.raises(ApiError):
        client.list()


def test_the_shell_can_complete() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "coppice.cli"],
        env=os.environ | {"_COPPICE_COMPLETE": "complete_bash", "COMP_WORDS": "coppice jo", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "jobs" in told.stdout


def test_a_service_that_is_not_there_has_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import coppice.client

    monkeypatch.setattr(coppice.client.Client.__init__, "__kwdefaults__", {"retry_for_s": 0.1, "api_key": None})
    told = call("jobs", "list", "--url", f"http://127.0.0.1:{free_port()}")
    assert told.exit_code == 3


def _job(live: Live, folder: Path) -> list[str]:
    path = folder / "spec.json"
    path.write_text(live.spec.model_dump_json())
    return ["--spec", str(path)]
