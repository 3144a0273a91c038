"""A ledger through the service as its users meet it: texts sent and named by path, a worker in its sandbox, report and page."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from coppice.cli import app
from pruning_core.report.ledger_words import ledger_sentence, ledger_words
from tests import tiny
from tests.integration.service import Backend, Service
from tests.unit.core.test_ledger import decoder_spec, write_decoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ITEMS = 12


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A model and its data, which the service may read, and a text, which is sent to it."""
    root = tmp_path / "inputs"
    write_decoder(root / "model")
    tiny.write_jsonl(root / "data")
    for folder, words in ((root / "notes", "plain words of a path "), (tmp_path / "german", "kurze Wörter von daheim ")):
        folder.mkdir()
        (folder / "text.txt").write_text(words * 100, encoding="utf-8")
    return root


@pytest.mark.long
def test_a_ledger_of_texts_of_ones_own(files: Path, tmp_path: Path) -> None:
    backend = Backend("local", tmp_path / "service", "", "")
    service = Service(backend, tmp_path, files, settings={"COPPICE_SANDBOX": "required"})
    with service.running() as client, httpx2.Client(base_url=service.url) as browser:
        texts = {"German": client.upload_dataset(tmp_path / "german").id, "by path": str(files / "notes")}
        job = client.submit(decoder_spec(files / "model", files / "data", {"texts": texts, "items": ITEMS}))
        done = client.wait(job.id)
        assert done.status == "succeeded", done.error
        assert done.spec["evaluation"]["ledger"]["texts"] == texts, "the id of the upload, not where the server keeps it"
        report, page = client.report(job.id), unescape(client.report_page(job.id))
        shown = unescape(browser.get(f"/jobs/{job.id}").text)
        told = CliRunner().invoke(app, ["report", job.id, "--url", service.url]).output
    assert report.ledger is not None
    own = [row for row in report.ledger.rows if row.subject in texts]
    assert {(row.subject, row.judged_by) for row in own} == {
        (name, by) for name in texts for by in ("perplexity", "agreement", "cloze")
    }
    assert all(row.rows == ITEMS and None not in (row.low, row.high, row.verdict or "") for row in own), own
    line = ledger_sentence(report.ledger)
    assert all(name in line for name in texts), "no text is left out of the line"
    assert all(line in one for one in (page, shown, told))
    for words in ledger_words(report.ledger):
        assert words.title in page
        assert words.figures in page
    assert str(backend.data_dir) not in report.model_dump_json() + page, "where uploads are kept is the server's"
