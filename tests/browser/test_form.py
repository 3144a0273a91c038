"""The form of a new job: what it needs first, folders of the server and of the person's own machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_dashboard import look
from tests.integration.service import Service

pytestmark = pytest.mark.slow

Open = Callable[..., Page]


def test_a_job_is_submitted_in_a_minute(service: Service, open_browser: Open, tiny_bert: Path, shots: Path) -> None:
    page = open_browser()
    with service.api() as client:
        page.goto(f"{service.url}/submit")
        top = page.get_by_role("button", name="Submit", exact=True).bounding_box()
        assert top is not None
        assert top["y"] < 900, "it can be pressed without scrolling"
        expect(page.get_by_label("Input columns", exact=True)).to_be_hidden()
        page.get_by_label("Task", exact=True).select_option("text-classification")
        expect(page.get_by_label("Input columns", exact=True)).to_be_visible()
        expect(page.get_by_label("Label column", exact=True)).to_be_visible()
        page.get_by_label("Task", exact=True).select_option("glue/sst2")

        page.get_by_role("link", name="Browse the server").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("link", name=f"{tiny_bert.name}").first.click()
        expect(dialog.get_by_role("link", name="Take this folder as model")).to_be_visible()
        look(page, "browse", shots)
        dialog.get_by_role("link", name="Take this folder as model").click()
        expect(dialog).to_be_hidden()
        expect(page.get_by_label("Model", exact=True)).to_have_value(str(tiny_bert))
        expect(page.get_by_label("Model", exact=True)).to_be_focused()

        page.get_by_text("Name and tags").click()
        page.get_by_label("Name", exact=True).fill("from the form")
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(page.get_by_role("heading", name="from the form")).to_be_visible()
        assert [job.spec["model"] for job in client.list()] == [str(tiny_bert)]


def test_a_folder_of_the_person_is_uploaded(
    service: Service, open_browser: Open, tiny_bert: Path, tiny_sst2: Path, tmp_path: Path
) -> None:
    deep = tmp_path / "mine"
    shutil.copytree(tiny_bert, deep / ("a" * 90))
    page = open_browser(quiet=True)
    with service.api() as client:
        page.goto(f"{service.url}/submit")
        page.locator("#up-model").set_input_files(str(deep / ("a" * 90)))
        expect(page.locator("#u-model")).to_have_text("Uploaded.")
        model = page.get_by_label("Model", exact=True).input_value()
        assert client.uploaded_model(model) is not None
        assert model == client.upload_model(tiny_bert).id, "the same content has the same id, however it came"
        page.locator("#up-data").set_input_files(str(tiny_sst2))
        expect(page.locator("#u-data")).to_have_text("Uploaded.")
        (tmp_path / "wrong").mkdir()
        (tmp_path / "wrong" / "notes.txt").write_text("no model")
        page.locator("#up-model").set_input_files(str(tmp_path / "wrong"))
        expect(page.locator("#u-model")).to_contain_text("Not uploaded: ")
        page.get_by_role("button", name="Check only").click()
        expect(page.get_by_text("This would be accepted")).to_be_visible()
        expect(page.get_by_label("Model", exact=True)).to_have_value(model)


def test_without_scripting_folders_are_chosen_on_a_page(service: Service, open_browser: Open, tiny_bert: Path) -> None:
    page = open_browser(scripting=False)
    with service.api():
        page.goto(f"{service.url}/submit")
        expect(page.get_by_text("Upload a folder").first).to_be_hidden()
        page.goto(f"{service.url}/browse?for=model")
        page.get_by_role("link", name=tiny_bert.name).first.click()
        page.get_by_role("link", name="Take this folder as model").click()
        expect(page.get_by_label("Model", exact=True)).to_have_value(str(tiny_bert))
