"""Tasks of one's own through real processes: chosen on the page and on the command line, up to the bundle."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from coppice.cli import app
from tests import tasks
from tests.contract.test_form import filled_in, own_task
from tests.families import ARCHITECTURES
from tests.integration.service import Backend, Service
from tests.matrix import SHOWN_ON
from tests.unit.coppice.test_check import task_words

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.parametrize("backend", ["local"], indirect=True)]


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """What the service may read."""
    (tmp_path / "inputs").mkdir()
    return tmp_path / "inputs"


@pytest.fixture
def service(backend: Backend, tmp_path: Path, roots: Path) -> Service:
    """A service over it."""
    return Service(backend, tmp_path, roots)


SMALL = {"calibration.samples": ["32"], "calibration.max_length": ["32"], "latency.length": ["16"], "latency.repeats": ["3"]}


@pytest.mark.long
def test_tasks_chosen_on_the_page_are_done(service: Service, roots: Path) -> None:
    with service.running() as client, httpx2.Client(base_url=service.url) as browser:
        page = browser.get("/submit").text
        for task_type in ("question-answering", "image-classification", "translation"):
            model = ARCHITECTURES[SHOWN_ON[task_type]].write_for(task_type, roots / f"page-{task_type}")
            task = tasks.task_of(task_type, tasks.write_task_data(roots / f"page-rows-{task_type}", task_type, rows=40))
            values = filled_in(page) | own_task(task) | SMALL | {"model": [str(model)], "tolerance": ["0.1"]}
            answer = browser.post("/submit", data=values)
            assert answer.status_code == 303, answer.text
            job = client.wait(answer.headers["location"].rpartition("/")[2])
            assert job.status == "succeeded", job.error
            assert client.report(job.id).quality.metric == task["metric"]


@pytest.mark.long
def test_a_task_chosen_on_the_command_line_is_done(service: Service, roots: Path, tmp_path: Path) -> None:
    model = ARCHITECTURES["bert"].write_for("token-classification", roots / "words")
    task = tasks.task_of("token-classification", tasks.write_task_data(roots / "words-rows", "token-classification", rows=40))
    words = ["--model", str(model), *task_words(task), "--macs-keep", "0.6", "--samples", "32", "--url", service.url]
    with service.running():
        done = CliRunner().invoke(app, ["prune", *words, "--out", str(tmp_path / "bundle")])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "bundle" / "model.safetensors").is_file()
