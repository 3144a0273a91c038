"""What operators and owners do about the life of jobs, as a person goes it: pause, look over tenants, delete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.keys.records import Scope
from coppice import Client
from tests.browser.test_dashboard import guarded, look, submitted

pytestmark = pytest.mark.slow

Open = Callable[..., Page]


@pytest.mark.long
def test_a_paused_queue_the_tenants_and_a_deletion(
    tmp_path: Path,
    open_browser: Open,
    tiny_bert: Path,
    tiny_sst2: Path,
    shots: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tenants = {"acme": frozenset(Scope), "globex": frozenset({Scope.JOBS_READ})}
    service, (key, _) = guarded(tmp_path, tiny_bert, tiny_sst2, tenants)
    monkeypatch.setenv("COPPICE_API_KEY", key)
    page = open_browser()
    with service.api(), Client(service.url) as client:
        job = submitted(client, tiny_bert, tiny_sst2)
        client.queue("pause")
        page.goto(f"{service.url}/jobs/{job}")
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("#paused")).to_contain_text("The queue is paused")
        look(page, "paused-job", shots)
        page.get_by_role("link", name="Tenants").click()
        expect(page.locator("#queue")).to_contain_text("The queue is paused: 0 running, 1 waiting")
        expect(page.get_by_role("row", name="globex")).to_be_visible()
        look(page, "tenants", shots)
        page.get_by_role("link", name="Jobs", exact=True).click()
        expect(page.locator("#paused")).to_be_visible()
        look(page, "paused-list", shots)
        client.queue("resume")
        page.goto(f"{service.url}/jobs/{job}")
        expect(page.locator("#paused")).to_have_count(0)
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#head .badge")).to_have_text("Cancelled")
        questions: list[str] = []
        page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
        page.get_by_role("button", name="Delete").click()
        assert questions == ["Delete this job for ever, with its report?"]
        look(page, "to-delete", shots)
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete").click()
        expect(page).to_have_url(f"{service.url}/")
        expect(page.get_by_text("Nothing has been pruned here yet.")).to_be_visible()
        page.goto("about:blank")  # or the list would look for a server that has ended
