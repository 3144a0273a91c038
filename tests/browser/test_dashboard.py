"""The dashboard's main paths, as a person goes them."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from app.jobs.leases import LeaseRepository
from app.jobs.records import JobError
from app.keys.records import Caller, Scope
from app.keys.service import KeyService
from app.secret import ServerSecret
from app.settings import Settings
from coppice import Client
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report
from tests.browser.conftest import WIDTHS
from tests.integration.service import Backend, Service
from tests.unit.app.sample import REPORT

pytestmark = pytest.mark.slow

Open = Callable[..., Page]


def look(page: Page, name: str, shots: Path) -> None:
    """Take pictures at both widths, light and dark, and have axe judge each."""
    for size, (width, height) in WIDTHS.items():
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=shots / f"{name}-{size}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than a {size}"
            found = [
                (issue["impact"], issue["id"], [node["target"] for node in issue["nodes"]])
                for issue in Axe().run(page).response["violations"]
            ]
            assert found == [], (name, size, scheme)
    page.set_viewport_size(dict(zip(("width", "height"), WIDTHS["desk"], strict=True)))
    page.emulate_media(color_scheme="light")


def fill_in(page: Page, model: Path, data: Path) -> None:
    page.get_by_label("Model", exact=True).fill(str(model))
    page.get_by_label("Data", exact=True).fill(str(data))
    page.get_by_text("Calibration", exact=True).click()
    page.get_by_label("Samples", exact=True).fill("64")
    page.get_by_text("Latency measurement", exact=True).click()
    page.get_by_label("Repeats").fill("3")


def submitted(client: Client, model: Path, data: Path) -> str:
    return client.prune(str(model), "glue/sst2", data=str(data), sparsity=0.5).id


def test_submit_watch_download_compare(
    service: Service, open_browser: Open, tiny_bert: Path, tiny_sst2: Path, shots: Path, tmp_path: Path
) -> None:
    page = open_browser()
    with service.running():
        page.goto(service.url)
        look(page, "empty", shots)
        page.get_by_role("link", name="Submit the first job").click()
        look(page, "submit", shots)
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("Model must not be empty")
        expect(page.get_by_role("alert")).to_be_focused()
        fill_in(page, tiny_bert, tiny_sst2)
        page.get_by_label("Value").fill("1.5")
        page.get_by_role("button", name="Check only").click()
        expect(page.get_by_role("alert")).to_contain_text("Value must be > 0 and < 1, got 1.5")
        look(page, "submit-refused", shots)
        page.get_by_label("Value").fill("70%, 0.5")
        page.get_by_role("button", name="Check only").click()
        expect(page.get_by_role("status")).to_contain_text("This would be accepted")
        page.get_by_role("button", name="Submit it").click()
        # Nobody loads the page again: it follows the job.
        page.evaluate("window.unchanged = true")
        expect(page.locator("#head .badge")).to_have_text("Running", timeout=60_000)
        expect(page.locator(".steps .current")).to_be_visible(timeout=60_000)
        look(page, "running", shots)
        expect(page.locator("#head .badge")).to_have_text("Succeeded", timeout=180_000)
        expect(page.get_by_role("heading", name="Result")).to_be_visible()
        expect(page.locator("#announce")).to_have_text("Succeeded")
        assert page.evaluate("window.unchanged") is True
        stages = page.locator("#events li").all_inner_texts()
        assert stages[0].startswith("Succeeded")
        assert stages[-1].startswith("Submitted")
        assert any("Stage recover" in line for line in stages)
        look(page, "succeeded", shots)
        with page.expect_download() as waiting:
            page.get_by_role("link", name=re.compile("^Download")).click()
        waiting.value.save_as(tmp_path / "bundle.tar")
        with tarfile.open(tmp_path / "bundle.tar") as archive:
            assert any(name.endswith("model.safetensors") for name in archive.getnames())
        page.get_by_role("link", name="Full report").click()
        expect(page.get_by_text("Coppice report")).to_be_visible()
        page.go_back()
        page.get_by_role("link", name="Submit another like it").click()
        expect(page.get_by_label("Value")).to_have_value("0.7, 0.5")
        page.get_by_text("Method: fisher-cg").click()
        page.get_by_role("radio", name=re.compile("magnitude")).check()
        expect(page.get_by_label("Representation")).to_be_hidden()
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(page.locator("#head .badge")).to_have_text("Succeeded", timeout=180_000)
        page.get_by_role("link", name="Compare").click()
        expect(page.locator(".mark")).to_have_count(4)
        expect(page.locator(".legend").get_by_text("fisher-cg", exact=True)).to_be_visible()
        look(page, "compare", shots)
        page.get_by_role("link", name="Jobs", exact=True).click()
        page.get_by_label("Method").select_option("magnitude")
        page.get_by_role("button", name="Filter").click()
        expect(page.locator(".jobs li")).to_have_count(1)
        page.get_by_role("link", name="Clear").click()
        expect(page.locator(".jobs li")).to_have_count(2)
        look(page, "list", shots)
        page.goto("about:blank")  # or the list would look for a server that has ended


@pytest.mark.long
def test_cancel_by_keyboard_and_retry(
    service: Service, open_browser: Open, tiny_bert: Path, tiny_sst2: Path, shots: Path
) -> None:
    page = open_browser()
    database = service.backend.database()
    with service.api() as client:
        job = submitted(client, tiny_bert, tiny_sst2)
        page.goto(f"{service.url}/jobs/{job}")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        questions: list[str] = []
        page.once("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#head .badge")).to_have_text("Queued")
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#head .badge")).to_have_text("Cancelled")
        assert questions == ["Cancel this job?"], "it has done nothing yet"
        job = submitted(client, tiny_bert, tiny_sst2)
        with database.write() as connection:
            leases = LeaseRepository(connection)
            claim = leases.claim(worker="test", lease_s=60)
            assert claim is not None
            error = JobError("target_missed", "the target was missed by 0.03", "target.keep")
            assert leases.fail(job, claim.fence, error=error, report=Report.model_validate(REPORT), artifacts=[])
        page.goto(f"{service.url}/jobs/{job}")
        look(page, "failed", shots)
        page.get_by_role("button", name="Try again as it is").click()
        expect(page.locator("#head .badge")).to_have_text("Queued")
        expect(page.locator("#events")).to_contain_text("Tried again")
        page.goto("about:blank")  # or its stream would break when the service ends
    database.close()


@pytest.mark.long
def test_a_lost_stream_is_told_and_made_up_for(
    service: Service, open_browser: Open, tiny_bert: Path, tiny_sst2: Path, shots: Path
) -> None:
    page = open_browser(quiet=True)
    database = service.backend.database()

    def tell(stage: str) -> None:
        progress = Progress(stage=stage, step=1, total=3)
        with database.write() as connection:
            LeaseRepository(connection).heartbeat(job, claim.fence, lease_s=600, progress=progress)
            LeaseRepository(connection).stage_begun(job, claim.fence, progress)

    with service.api() as client:
        job = submitted(client, tiny_bert, tiny_sst2)
        with database.write() as connection:
            claim = LeaseRepository(connection).claim(worker="test", lease_s=600)
        page.goto(f"{service.url}/jobs/{job}")
        tell("load")
        expect(page.locator("#events")).to_contain_text("Stage load")
    tell("score")
    expect(page.get_by_text("The stream of events is lost")).to_be_visible()
    look(page, "lost", shots)
    tell("search")
    with service.api():
        expect(page.locator("#events")).to_contain_text("Stage search", timeout=90_000)
        expect(page.get_by_text("The stream of events is lost")).to_be_hidden()
        tell("recover")
        expect(page.locator("#events")).to_contain_text("Stage recover")
        lines = [line.split("\n")[0] for line in page.locator("#events li > span").all_inner_texts()]
        stages = [f"Stage {name}" for name in ("recover", "search", "score", "load")]
        assert lines == [*stages, "A worker took it", "Submitted"]
    database.close()


@pytest.mark.long
def test_another_budget_is_looked_at_and_ordered(
    service: Service, open_browser: Open, tiny_bert: Path, tiny_sst2: Path, shots: Path
) -> None:
    page, plain = open_browser(), open_browser(scripting=False)
    database = service.backend.database()
    points = [
        {"keep": keep, "parameters": round(200 * keep), "bytes": round(400 * keep), "cost": (1 - keep) ** 2}
        for keep in (0.9, 0.5, 0.2)
    ]
    quality = REPORT["quality"] | {"details": {"agreement_with_dense": 0.95}}
    report = Report.model_validate(REPORT | {"outlook": {"points": points}, "quality": quality})
    with service.api() as client:
        job = submitted(client, tiny_bert, tiny_sst2)
        with database.write() as connection:
            leases = LeaseRepository(connection)
            claim = leases.claim(worker="test", lease_s=60)
            assert claim is not None
            assert leases.succeed(job, claim.fence, report=report, artifacts=[], keep_s=None)
        page.goto(f"{service.url}/jobs/{job}")
        slider = page.get_by_role("slider", name=re.compile("MACs kept"))
        slider.focus()
        for _ in range(20):
            page.keyboard.press("ArrowLeft")
        expect(page.locator("[data-show=keep]")).to_have_text("30")
        expect(page.locator("[data-show=size]")).to_have_text("30%")
        expect(page.locator("[data-show=divergence]")).to_have_text("0.102")
        look(page, "outlook", shots)
        plain.goto(f"{service.url}/jobs/{job}")
        plain.get_by_role("slider").fill("30")
        plain.get_by_role("button", name="Look at this budget").click()
        expect(plain.locator("[data-show=divergence]")).to_have_text("0.102")
        page.get_by_role("button", name="Order this budget").click()
        expect(page.locator("#head .badge")).to_have_text("Queued")
        expect(page.locator("#head")).to_contain_text("30% of the MACs")
        page.goto("about:blank")
    database.close()


@pytest.mark.long
def test_without_scripting_everything_reads_and_works(
    service: Service, open_browser: Open, tiny_bert: Path, tiny_sst2: Path
) -> None:
    page = open_browser(scripting=False)
    with service.api():
        page.goto(f"{service.url}/submit")
        fill_in(page, tiny_bert, tiny_sst2)
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(page.locator("#head .badge")).to_have_text("Queued")
        expect(page.locator("#events")).to_contain_text("Submitted")
        assert 'http-equiv="refresh"' in page.content(), "the page loads itself again"
        page.goto(service.url)
        expect(page.locator(".jobs li")).to_have_count(1)
        page.locator(".jobs li a").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#head .badge")).to_have_text("Cancelled")


def guarded(
    folder: Path,
    model: Path,
    data: Path,
    tenants: Mapping[str, frozenset[Scope]],
    more: Mapping[str, str] | None = None,
) -> tuple[Service, Sequence[str]]:
    """Return a service that asks for keys, with more settings, and a key of each tenant with these scopes."""
    backend = Backend("local", folder / "data", "", "")
    settings = {"COPPICE_AUTH": "true", "COPPICE_SECRET": "s" * 40} | dict(more or {})
    service = Service(backend, folder, model, data, settings=settings)  # it makes the database
    database = backend.database()
    keys = KeyService(database, ServerSecret(Settings(secret=SecretStr("s" * 40))))
    made = [
        keys.create(owner=owner, name="", scopes=scopes, lives_s=None, caller=Caller())[1] for owner, scopes in tenants.items()
    ]
    database.close()
    return service, made


@pytest.mark.long
def test_a_key_is_shown_once(
    tmp_path: Path,
    open_browser: Open,
    tiny_bert: Path,
    tiny_sst2: Path,
    shots: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scopes = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE})
    service, (key,) = guarded(tmp_path, tiny_bert, tiny_sst2, {"acme": scopes})
    monkeypatch.setenv("COPPICE_API_KEY", key)
    page = open_browser()
    with service.api() as client:
        job = submitted(client, tiny_bert, tiny_sst2)
        page.goto(f"{service.url}/jobs/{job}")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        look(page, "sign-in", shots)
        for wrong, says in (("cpk_wrong", "no whole API key"), (f"cpk_{'A' * 43}", "no such key here, or it was revoked")):
            page.get_by_label("API key").fill(wrong)
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_contain_text(says)
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{service.url}/jobs/{job}")
        expect(page.get_by_text("acme")).to_be_visible()
        assert page.evaluate("document.cookie") == ""
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#head .badge")).to_have_text("Cancelled")
        look(page, "signed-in", shots)
        page.get_by_role("button", name="Sign out").click()
        page.goto(service.url)
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.long
def test_all_mistakes_of_a_form_are_shown_and_lead_to_their_fields(service: Service, open_browser: Open, shots: Path) -> None:
    page = open_browser()
    with service.api():
        page.goto(f"{service.url}/submit")
        page.get_by_label("Model", exact=True).fill("rel/../x")
        page.get_by_label("Data", exact=True).fill("a:b")
        page.get_by_label("Value", exact=True).fill("5")
        page.get_by_text("Quality floor, tolerance", exact=False).first.click()
        page.get_by_label("Quality floor", exact=True).fill("abc")
        page.get_by_text("Calibration", exact=True).click()
        page.get_by_label("Samples", exact=True).fill("1")
        page.get_by_role("button", name="Submit", exact=True).click()
        problems = page.get_by_role("alert")
        expect(problems.get_by_role("link")).to_have_text(
            [
                "Value must be > 0 and < 1, got 5",
                "Quality floor must be a number",
                "Samples must be greater than or equal to 8",
                "Model must be a Hub id such as org/name, or an absolute path",
                "Data must be a Hub id such as org/name, or an absolute path",
            ]
        )
        expect(problems).to_be_focused()
        expect(page.get_by_label("Samples", exact=True)).to_be_visible()  # its section is open
        expect(page.get_by_label("Model", exact=True)).to_have_value("rel/../x")
        expect(page.get_by_label("Quality floor", exact=True)).to_have_value("abc")
        look(page, "mistakes", shots)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Value", exact=True)).to_be_focused()
        for label, right in (("Value", "0.5"), ("Quality floor", ""), ("Samples", "64")):
            page.get_by_label(label, exact=True).fill(right)
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(page.get_by_role("alert").get_by_role("link")).to_have_text(
            ["Model must be a Hub id such as org/name, or an absolute path"] * 1
            + ["Data must be a Hub id such as org/name, or an absolute path"]
        )


@pytest.mark.long
def test_a_waiting_job_and_a_refused_candidate_look_like_what_they_are(
    service: Service, open_browser: Open, shots: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    page = open_browser()
    with service.api() as client:
        refused = submitted(client, tiny_bert, tiny_sst2)
        database = service.backend.database()
        with database.write() as connection:
            claim = LeaseRepository(connection).claim(worker="test", lease_s=60)
            assert claim is not None
            LeaseRepository(connection).fail(
                claim.job_id,
                claim.fence,
                error=JobError("quality_floor", "accuracy is 0.41, below the floor of 0.89", param="quality_floor"),
                report=Report.model_validate(REPORT),
                artifacts=[],
            )
        waiting = submitted(client, tiny_bert, tiny_sst2)
        page.goto(f"{service.url}/jobs/{waiting}")
        expect(page.locator("#no-worker")).to_contain_text("No worker is signed in")
        expect(page.locator("#progress")).to_contain_text("It is the next one")
        look(page, "waiting", shots)
        page.goto(f"{service.url}/jobs/{refused}")
        expect(page.get_by_role("heading", name="Candidate that was refused")).to_be_visible()
        large = page.locator(".headlines b").first.evaluate("it => parseFloat(getComputedStyle(it).fontSize)")
        assert large <= 20, "no figure is as large as that of a result"
        look(page, "refused", shots)
    database.close()


@pytest.mark.long
def test_sets_slices_and_a_ledger_are_filled_in(
    service: Service, open_browser: Open, shots: Path, tiny_bert: Path, tiny_sst2: Path
) -> None:
    page = open_browser()
    with service.api() as client:
        page.goto(f"{service.url}/submit")
        page.get_by_label("Model", exact=True).fill(str(tiny_bert))
        page.get_by_label("Data", exact=True).fill(str(tiny_sst2))
        page.get_by_text("Slices by your columns", exact=True).click()
        page.get_by_label("Slices by columns", exact=True).fill("label")
        page.get_by_text("Further evaluation sets", exact=True).click()
        page.get_by_label("Set 1: name", exact=True).fill("first")
        page.get_by_label("Set 1: split", exact=True).fill("train")
        page.get_by_role("button", name="Another set").click()
        page.get_by_label("Set 2: name", exact=True).fill("no name")
        page.get_by_label("Set 2: data", exact=True).fill(str(tiny_sst2))
        page.get_by_label("Set 2: metric", exact=True).select_option("f1")
        page.get_by_text("Ledger of capabilities", exact=True).click()
        page.get_by_label("Ledger", exact=True).check()
        page.get_by_label("Model", exact=True).press("Enter")  # as the button Submit, and not as the first one in sight
        problems = page.get_by_role("alert")
        expect(problems.get_by_role("link").filter(has_text="Set 2: name")).to_be_visible()
        expect(page.get_by_label("Set 1: name", exact=True)).to_have_value("first")
        page.get_by_label("Set 2: name", exact=True).fill("second")
        page.get_by_role("button", name="Submit", exact=True).click()
        expect(problems.get_by_role("link")).to_contain_text(["a ledger is for decoders and embedders"])
        look(page, "sets", shots)
        page.get_by_label("Ledger", exact=True).uncheck()
        page.get_by_role("button", name="Submit", exact=True).click()
        page.wait_for_url("**/jobs/*")
        found = client.get(page.url.rpartition("/")[2]).spec["evaluation"]
        assert [(own["name"], own["metric"]) for own in found["also"]] == [("first", None), ("second", "f1")]
        assert found["slices"] == ["label"]
        assert "ledger" not in found
        page.goto("about:blank")  # a job's page goes on listening to its server
