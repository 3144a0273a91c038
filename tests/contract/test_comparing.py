"""Checkpoints side by side: by name and layout, across models, each beside the dense model of its own evaluation."""

from __future__ import annotations

import re
import shutil

from app.jobs.leases import LeaseRepository
from pruning_core.report.report import Report
from tests.contract.conftest import Api
from tests.unit.app.sample import REPORT


def finished(api: Api, *, dense: float = 0.9, pruned: float = 0.88, layout: str = "per_layer", **changes: object) -> str:
    job = api.submit(**changes)
    job_id, fence = api.claim()
    quality = {**REPORT["quality"], "dense": dense, "pruned": pruned}
    report = Report.model_validate({**REPORT, "quality": quality, "layout": layout})
    with api.database.write() as connection:
        assert LeaseRepository(connection).succeed(job_id, fence, report=report, artifacts=[])
    return job


def rows(page: str) -> list[list[str]]:
    """Return the cells of every row of every table, headings left out."""
    return [
        [re.sub(r"<[^>]+>|\s+", " ", cell).strip() for cell in re.findall(r"<t[dh] role[^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        for row in re.findall(r'<tr role="row">(.*?)</tr>', page, re.DOTALL)
        if "columnheader" not in row
    ]


def test_names_and_layouts_are_labelled_and_each_has_its_own_dense_row(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    finished(api, name="as it is", layout="stock")
    finished(api, name="of widths")
    finished(api, name="judged otherwise", dense=0.92, pruned=0.9)
    page = api.client.get("/compare").text
    assert page.count('aria-label="glue/sst2 in numbers"') == 2
    found = {row[1].partition(" fisher")[0].strip(): row for row in rows(page) if row[0]}
    assert found["as it is"][2] == "stock"
    assert found["of widths"][2] == "per layer"
    dense = [row for row in rows(page) if row[1] == "dense"]
    assert sorted(row[6] for row in dense) == ["0.9000", "0.9200"]
    assert "as it is" not in api.client.get("/compare?name=widths").text
    assert "No finished job is like that" in api.client.get("/compare?tag=none").text


def test_models_are_compared_on_the_same_rows(api_on_sqlite: Api) -> None:
    api = api_on_sqlite
    other = shutil.copytree(api.body["model"], f"{api.body['model']}-other")
    try:
        finished(api, name="one", dense=0.9)
        finished(api, name="two", dense=0.8, model=str(other))
        page = api.client.get("/compare?model=*").text
    finally:
        shutil.rmtree(other)
    assert page.count('aria-label="glue/sst2 in numbers"') == 1, "in one table and one chart"
    assert sorted(row[7] for row in rows(page) if row[1] == "dense") == ["0.8000", "0.9000"]
    assert len({row[2] for row in rows(page)}) == 2, "models are named"
    assert page.count('<g class="mark') == 2
    assert "Size in MB" in page
