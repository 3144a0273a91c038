"""People sign in by a real provider, in a real browser: there and back, by role, out again, and where it does not work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.keys.records import Scope
from tests.browser.test_dashboard import guarded, look
from tests.integration.service import Service
from tests.oidc import RunningProvider, provider

pytestmark = pytest.mark.slow

Open = Callable[..., Page]


def service_of(folder: Path, model: Path, data: Path, running: RunningProvider, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Return a service whose people sign in at the provider; the key is for the test's own look whether it answers."""
    service, (key,) = guarded(folder, model, data, {"acme": frozenset({Scope.JOBS_READ})}, running.environment())
    monkeypatch.setenv("COPPICE_API_KEY", key)
    return service


def agree(page: Page, running: RunningProvider, subject: str) -> None:
    """Fill in the provider's own form."""
    expect(page).to_have_url(re.compile(re.escape(running.url)))
    page.locator("input[name=sub]").fill(subject)
    page.keyboard.press("Enter")


def test_there_and_back_by_role_and_out_again(
    tmp_path: Path, open_browser: Open, tiny_bert: Path, tiny_sst2: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with provider(tmp_path / "provider") as running:
        running.know("ada@example.org", "ml", name="Ada Lovelace")
        running.know("rhea@example.org", "everybody")
        running.know("max@example.org", "guests", "ml", name="Maximiliane von der Leine-Hohenstaufen the Younger of Aachen")
        running.know("nobody@example.org", "unrelated")
        service = service_of(tmp_path, tiny_bert, tiny_sst2, running, monkeypatch)
        page = open_browser()
        with service.api():
            page.goto(f"{service.url}/submit")
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            look(page, "sign-in-with", shots)
            page.get_by_role("link", name="Sign in with Example").click()
            agree(page, running, "ada@example.org")
            expect(page).to_have_url(f"{service.url}/submit")
            expect(page.locator("#who")).to_have_text("Ada Lovelace · acme · runner")
            assert page.evaluate("document.cookie") == "", "no script of a page can read a session"
            page.get_by_label("Model", exact=True).fill(str(tiny_bert))
            page.get_by_label("Data", exact=True).fill(str(tiny_sst2))
            page.get_by_role("button", name="Submit", exact=True).click()
            expect(page.locator("#head .badge")).to_have_text("Queued")
            job = page.url
            look(page, "person-signed-in", shots)
            page.get_by_role("button", name="Sign out").click()
            expect(page).to_have_url(re.compile(re.escape(f"{running.url}/oauth2/end_session")))
            page.goto(job)
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            # A reader sees the same job, and no button that they may not press.
            page.get_by_role("link", name="Sign in with Example").click()
            agree(page, running, "rhea@example.org")
            expect(page).to_have_url(job)
            expect(page.locator("#who")).to_have_text("Rhea · acme · reader")
            expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
            expect(page.get_by_role("link", name="New job")).to_have_count(0)
            expect(page.locator("#may-not")).to_contain_text("Your role here is reader")
            look(page, "reader", shots)
            page.goto(f"{service.url}/sign-in/oidc")
            agree(page, running, "max@example.org")
            expect(page.locator("#who")).to_contain_text("Aachen · acme · runner")
            page.get_by_label("Tenant").select_option("rival")
            page.get_by_role("button", name="Switch").click()
            expect(page.locator("#who")).to_contain_text("Aachen · rival · reader")
            look(page, "two-tenants", shots)
            page.goto(f"{service.url}/sign-in/oidc")
            agree(page, running, "nobody@example.org")
            expect(page.get_by_role("heading", name="You have no role here")).to_be_visible()
            look(page, "no-role", shots)


@pytest.mark.long
def test_a_provider_that_is_away_is_told_of_and_keys_go_on(
    tmp_path: Path, open_browser: Open, tiny_bert: Path, tiny_sst2: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with provider(tmp_path / "provider") as running:
        running.server.stop()
        service = service_of(tmp_path, tiny_bert, tiny_sst2, running, monkeypatch)
        page = open_browser(quiet=True)
        with service.api():
            page.goto(service.url)
            page.get_by_role("link", name="Sign in with Example").click()
            expect(page.get_by_role("alert")).to_contain_text("Example cannot be reached for a sign-in now; API keys work")
            expect(page.get_by_label("API key")).to_be_visible()
            look(page, "provider-away", shots)
