"""The command line's words: its own options, all that is wrong at once, addresses, keys, ids, and narrow terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.jobs.upkeep import UpkeepRepository
from app.keys.records import Caller, Scope
from coppice.cli import app
from coppice.client import Client
from coppice.commands.options import JobOptions
from coppice.errors import BadArgument
from pruning_core.errors import DatasetInvalid, ModelUnreadable, Several
from tests.servers import free_port
from tests.unit.coppice.conftest import Live

GOOD = {"--model": "org/name", "--task": "glue/sst2", "--sparsity": "0.5"}
OWN = {"--model": "org/name", "--task": "text-classification", "--data": "org/d", "--sparsity": "0.5"}
COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def call(*arguments: str | Path, **environment: str):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"TERM": "dumb", "COLUMNS": "200"} | environment)


def words(options: dict[str, str]) -> list[str]:
    return [word for pair in options.items() for word in pair]


def on_a_terminal(columns: int, *arguments: str, **environment: str) -> list[str]:
    """Run the command on a real terminal of a width, and return the lines that it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-m", "coppice.cli", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=kept | {"TERM": "xterm"} | environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            some = os.read(ours, 4096)
        except OSError:
            break
        if not some:
            break
        shown += some
    os.close(ours)
    assert process.wait(60) == 0, shown
    return [line.rstrip() for line in COLOURS.sub("", shown.decode()).replace("\r", "").splitlines()]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"--task": "glue/sst"}, "--task: glue/sst is no known task; did you mean glue/sst2?"),
        ({"--task": "text-clasification"}, "did you mean text-classification?"),
        ({"--task": "zzz"}, "types of tasks, for your own --data with --text or --image and --label, are text-classification"),
        ({"--method": "fisher"}, "--method: unknown method; known methods are fisher-cg"),
        ({"--layout": "per-layer"}, "--layout must be 'per_layer', 'stock' or 'serve'; did you mean per_layer?"),
        ({"--quality-floor": "1.5"}, "--quality-floor: a relative quality floor must be > 0 and <= 1"),
        ({"--format": "onnx", "--weights": "paged"}, "and --weights is paged: leave onnx out of --format"),
    ],
)
def test_the_command_line_speaks_of_its_own_options(changes: dict[str, str], says: str) -> None:
    told = call("check", *words(GOOD | changes))
    assert (told.exit_code, says in told.stderr) == (2, True), told.stderr
    assert not re.search(r"\b(task|calibration|memory|artifacts|method)\.[a-z]", told.stderr), "no field of a spec"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"--image": "a", "--label": "b"}, "--text: a text-classification task reads text columns in --text"),
        ({"--text": "a", "--label": "b", "--metric": "acuracy"}, "--metric must be 'accuracy'"),
        (
            {"--text": "a", "--label": "b", "--metric": "bleu"},
            "--metric: metric of a text-classification task must be one of accuracy",
        ),
        ({"--text": "a", "--label": "b", "--prefix": "x"}, "--prefix: prefix is for tasks that make a text"),
    ],
)
def test_options_that_were_not_given_are_named_too(changes: dict[str, str], says: str) -> None:
    told = call("check", *words(OWN | changes))
    assert (told.exit_code, says in told.stderr) == (2, True), told.stderr


def test_a_field_of_a_spec_file_is_named_as_one(tmp_path: Path) -> None:
    spec = tmp_path / "my.json"
    spec.write_text(
        json.dumps(
            {
                "model": "org/m",
                "task": "glue/sst2",
                "sparsity": 0.5,
                "calibration": {"batch_tokens": 1, "smples": 9},
                "seed": -1,
            }
        )
    )
    told = call("check", "--spec", spec)
    assert told.exit_code == 2
    for says in (
        "3 things are wrong",
        f"calibration.batch_tokens in {spec} must be greater than or equal to 64",
        f"calibration.smples in {spec} is no known field; did you mean samples?",
        f"seed in {spec} must be greater than or equal to 0",
    ):
        assert says in told.stderr
    over = call("check", "--spec", spec, "--seed", "-2")
    assert "--seed must be greater" in over.stderr, "the option that was given is what to change"
    job = JobOptions(model="org/m")
    assert job.option_for("calibration.batch_tokens") == "calibration.batch_tokens (a field of a --spec file)"
    assert job.option_for("task.columns.text.0") == "--text"
    assert job.option_for("target.keep") == "--sparsity or --macs-keep or --params-keep or --latency-keep or --bytes-at-most"


def test_words_of_the_core_become_options_within_sentences() -> None:
    job = JobOptions(model="org/m")
    said = job.worded("task.columns", "no column 'sentence'; it has 'a'. Name the right ones in task.columns")
    assert said == "--text: no column 'sentence'; it has 'a'. Name the right ones in --text (or --image) and --label"
    assert job.worded("", "see docs/guides/tasks.md and task.dataset") == "see docs/guides/tasks.md and --data"
    assert job.worded("model", "model type bert.v2 is unknown") == "--model: model type bert.v2 is unknown"


def test_all_that_the_core_refuses_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    import click
    import typer

    from coppice.commands.options import refuse

    both = Several([ModelUnreadable("no config.json", param="model"), DatasetInvalid("no train split", param="task.dataset")])
    with pytest.raises((typer.Exit, click.exceptions.Exit)):
        refuse(both, JobOptions(model="org/m"))
    assert "2 things are wrong:\n  - --model: no config.json\n  - --data: no train split\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:8000", "did you mean http://localhost:8000?"),
        ("ftp://x", "must be such as http://127.0.0.1:8000"),
        ("", "must be such as http://127.0.0.1:8000"),
        ("http://127.0.0.1:99999", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("http://", "must be such as"),
        ("http://x/?a=b", "without ? and #"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, says: str) -> None:
    told = call("jobs", "list", "--url", url)
    assert (told.exit_code, says in told.stderr) == (2, True), told.output
    with pytest.raises(BadArgument, match="address"):
        Client(url)


@pytest.mark.long
def test_no_answer_names_the_address_that_was_tried(live: Live) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    told = call("jobs", "list", "--url", url)
    assert told.exit_code == 3
    for says in (
        f"no answer from the service at {url} (connection refused)",
        "is it running there",
        "COPPICE_URL",
        "coppice serve",
    ):
        assert says in told.stderr
    secure = call("jobs", "list", "--url", live.url.replace("http://", "https://"))
    assert (secure.exit_code, f"it seems to speak http there: try {live.url}" in secure.stderr) == (3, True), secure.stderr
    assert "did you mean /v1/jobs?" in call("jobs", "list", "--url", f"{live.url}/v1").stderr
    assert call("jobs", "list", "--url", f"{live.url}/").exit_code == 0


@pytest.fixture
def stranger() -> Iterator[str]:
    """Another server than ours, which answers everything with a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if "jobs" in self.path else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_told: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_another_server_is_no_service(stranger: str) -> None:
    told = call("jobs", "list", "--url", stranger)
    assert (told.exit_code, f"what answers at {stranger} is not Coppice" in told.stderr) == (3, True), told.output
    missing = call("keys", "list", "--url", stranger)
    assert (missing.exit_code, f"is {stranger} the address of Coppice?" in missing.stderr) == (2, True), missing.output


def test_what_is_wrong_with_the_key_is_said_with_where_keys_go(guarded: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COPPICE_API_KEY", raising=False)
    at = ("jobs", "list", "--url", guarded.url)
    late = guarded.keys.create(owner="a", name="", scopes=frozenset({Scope.JOBS_READ}), lives_s=-5, caller=Caller())[1]
    for key, says in (
        ("", "wants an API key, and none was given: export COPPICE_API_KEY=cpk_..., or give --api-key"),
        ("cpk_short", "no whole API key: one is cpk_ and 43 letters"),
        (
            f"cpk_{'A' * 43}",
            "does not take the key of --api-key or COPPICE_API_KEY: this API key is not known here, or was revoked",
        ),
        (late, "this API key has expired"),
        ("cpk_\u00fc", "holds signs that no key has"),
        ("two words", "holds signs that no key has"),
    ):
        told = call(*at, COPPICE_API_KEY=key)
        assert (told.exit_code, says in told.stderr) == (2, True), (key, told.output)
        assert late not in told.output
    assert call(*at, COPPICE_API_KEY=f" {guarded.key()}\n").exit_code == 0, "what a file or a copy adds is no part of a key"
    made = call(
        "keys",
        "create",
        "--tenant",
        "a b",
        "--scope",
        "job:read",
        "--url",
        guarded.url,
        "--api-key",
        guarded.key("a", Scope.ADMIN),
    )
    assert "--tenant may hold only letters" in made.stderr
    assert (
        "--scope must be 'jobs:read', 'jobs:write', 'tenant:admin', 'jobs:priority' or 'admin'; did you mean jobs:read?"
        in made.stderr
    )


def test_an_id_that_is_nearly_right_names_the_job(live: Live) -> None:
    with Client(live.url) as client:
        job = client.submit(live.spec)
    for command in (("jobs", "show"), ("jobs", "cancel"), ("jobs", "retry"), ("jobs", "logs"), ("report",)):
        for near in (job.id[:14], job.id[:-1] + ("0" if job.id[-1] != "0" else "1")):
            told = call(*command, near, "--url", live.url)
            assert (told.exit_code, f"did you mean {job.id}?" in told.stderr) == (2, True), told.output
    assert "coppice jobs list shows those that there are" in call("jobs", "show", "job_nothing", "--url", live.url).stderr
    assert "a job's id is 1 to 64 letters" in call("jobs", "show", "", "--url", live.url).stderr
    assert "did you mean failed?" in call("jobs", "list", "--status", "faild", "--url", live.url).stderr


def test_a_job_that_waits_says_for_what(live: Live) -> None:
    with Client(live.url) as client:
        first, second = client.submit(live.spec), client.submit({**live.spec.model_dump(mode="json"), "seed": 1})
    told = call("jobs", "show", second.id, "--url", live.url)
    assert f"{second.id}: queued, 1 before it" in told.stdout
    assert "0 signed in" in told.stdout
    assert "no worker is signed in at the service" in told.stderr
    with live.database.write() as connection:
        UpkeepRepository(connection).sign_in("host-1")
    told = call("jobs", "show", first.id, "--url", live.url)
    assert f"{first.id}: queued, the next one" in told.stdout
    assert "1 signed in" in told.stdout
    assert told.stderr == ""


@pytest.mark.parametrize("columns", [120, 80, 60, 40])
def test_tables_fit_a_narrow_terminal_and_ids_stay_whole(live: Live, columns: int) -> None:
    own_id = "nightly-run-of-the-whole-team-2026-11-27-and-a-little-longer-x"
    with Client(live.url) as client:
        ids = [client.submit(live.spec).id, client.submit(live.spec, job_id=own_id).id]
    key = live.keys.create(
        owner="acme-research", name="my laptop", scopes=frozenset({Scope.JOBS_READ}), lives_s=None, caller=Caller()
    )[0]
    jobs = on_a_terminal(columns, "jobs", "list", "--url", live.url)
    listed = on_a_terminal(columns, "keys", "list", COPPICE_DATA_DIR=str(live.scratch / "data"))
    for wanted, lines in ((ids, jobs), ([key.id], listed)):
        for one in wanted:
            (line,) = [line for line in lines if one in line]
            assert re.search(rf"(^|\s){one}(\s|$)", line), "it can be copied whole"
            assert "queued" in line or "valid" in line
    too_wide = [line for line in (*jobs, *listed) if len(line) > columns and not any(one in line for one in (*ids, key.id))]
    assert too_wide == []
    shown = "\n".join(listed)
    assert all(part in shown for part in ("acme-research", "my laptop", "jobs:read")), "nothing is broken into letters"
    assert len(jobs) == (3 if columns == 120 else 4)


def test_a_pipe_gets_one_line_a_job_whatever_the_terminal(live: Live) -> None:
    with Client(live.url) as client:
        job = client.submit(live.spec)
    line = [sys.executable, "-m", "coppice.cli", "jobs", "list", "--url", live.url]
    told = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60, env=os.environ | {"COLUMNS": "40"})
    heading, row = told.stdout.splitlines()
    assert heading.split() == ["id", "status", "done", "age", "model", "task"]
    assert row.split()[:2] == [job.id, "queued"]
    assert row.split()[-1] == "glue/sst2"


def test_a_figure_that_is_misspelt_names_the_nearest() -> None:
    told = call("prune", *words(GOOD), "--out", "out", "--fail-if", "dropp>0.01")
    assert (told.exit_code, "is no condition" in told.stderr, "did you mean drop?" in told.stderr) == (2, True, True), (
        told.stderr
    )


def test_only_folders_of_this_host_are_uploaded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = GOOD | {"--model": str(tmp_path / "file"), "--data": str(tmp_path / "nowhere")}
    told = call("prune", *words(given), "--upload", "--no-wait", "--url", "http://127.0.0.1:9")
    assert told.exit_code == 2
    assert f"--model {tmp_path / 'file'} is a file; --upload sends folders" in told.stderr
    assert f"--data {tmp_path / 'nowhere'} is no folder of this host" in told.stderr


def test_the_engine_of_a_latency_is_an_option_of_its_own():
    job = JobOptions(model="org/name", task="glue/sst2", latency_keep=[0.7], latency_engine="onnxruntime")
    spec = job.to_spec()
    assert spec.target.model_dump() == {"metric": "latency", "keep": 0.7, "tolerance": 0.05, "engine": "onnxruntime"}
    assert (spec.artifacts.engines, spec.artifacts.formats) == (("onnxruntime",), ("safetensors", "onnx"))
    assert job.option_for("target.engine") == "--latency-engine"
    assert job.option_for("target.keep") == "--latency-keep"


def test_the_engine_of_a_latency_needs_the_latency():
    options = ["--model", "org/name", "--task", "glue/sst2", "--macs-keep", "0.7", "--latency-engine", "vllm"]
    result = CliRunner().invoke(app, ["check", *options])
    assert result.exit_code == 2
    assert "--latency-engine: only with --latency-keep" in " ".join(result.output.split())


def test_another_share_keeps_the_engine_of_the_spec_file(tmp_path: Path):
    target = {"metric": "latency", "engine": "vllm", "phase": "decode", "keep": 0.8}
    task = {"type": "text-generation", "metric": "perplexity", "columns": {"text": ["text"]}}
    given = {"model": "org/name", "task": task, "data": "org/data", "target": target, "artifacts": {"layout": "serve"}}
    (tmp_path / "spec.json").write_text(json.dumps(given), encoding="utf-8")
    job = JobOptions(spec=tmp_path / "spec.json", latency_keep=[0.6])
    assert job.to_spec().target.model_dump() == {**target, "keep": 0.6, "tolerance": 0.05}
    other = JobOptions(spec=tmp_path / "spec.json", latency_keep=[0.6], latency_phase="prefill")
    assert other.to_spec().target.model_dump() == {**target, "keep": 0.6, "phase": "prefill", "tolerance": 0.05}
