"""A real headless Chromium, driven by Playwright; where there is none the tests say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.integration.service import Backend, Service

WIDTHS = {"phone": (390, 844), "desk": (1280, 900)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that COPPICE_CHROMIUM names; ends with its tests: playwright keeps a loop running."""
    path = os.environ.get("COPPICE_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium (apt-get install chromium): the dashboard is not tried in a browser")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


def _is_complaint(said: ConsoleMessage) -> bool:
    """Whether a message is about the page: that a form was refused (a 4xx) is told in the console too."""
    return said.type in ("error", "warning") and "the server responded with a status of 4" not in said.text


@pytest.fixture
def open_browser(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open windows; what they complain of, a breach of the Content-Security-Policy above all, fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(size: str = "desk", scheme: str = "light", *, scripting: bool = True, quiet: bool = False) -> Page:
        width, height = WIDTHS[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=scripting
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        if not quiet:  # where a server is taken away, the browser says so
            page.on("console", lambda said: complaints.append(said.text) if _is_complaint(said) else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go: COPPICE_SHOTS keeps them."""
    folder = Path(os.environ.get("COPPICE_SHOTS", tmp_path / "shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def service(tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> Service:
    """The local profile; nothing runs yet."""
    return Service(Backend("local", tmp_path / "data", "", ""), tmp_path, tiny_bert, tiny_sst2)
