"""Browsing from the form: what lies in the allowed roots, and nothing of what lies outside or is the service's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from app.inspection.browsing import listing
from app.keys.records import Caller, Scope
from app.refusals import Refused
from app.web.routes import ROUTERS
from tests.contract.conftest import Api
from tests.contract.test_references import outside, root  # noqa: F401 - fixtures


def shown(api: Api, place: str | Path = "") -> list[str]:
    page = api.client.get("/browse", params={"at": str(place)})
    assert page.status_code == 200, page.text
    inner = page.text[page.text.index('class="members"') :] if 'class="members"' in page.text else ""
    found = re.findall(r'<li>(?:<a href="[^"]*" data-browse>|<span class="note">)([^<]*)', inner)
    return [unescape(name) for name in found]


@pytest.fixture
def browsed(make_api: Callable[..., Api], root: Path, outside: Path) -> Api:  # noqa: F811
    """An application with one root, in which lie links of all kinds that lead out, and the service's own folders."""
    (root / "data <b>").mkdir()
    (root / "data <b>" / "train.csv").write_text("text,label\n")
    (root / "within").symlink_to(root / "model")
    for name, target in {
        "out": outside,
        "out-relative": Path("..") / "outside",
        "out-file": outside / "file",
        "out-none": outside / "none",
        "dangling": root / "none",
        "loop": root / "loop",
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    (Path(os.fsencode(root).decode()) / os.fsdecode(b"bad-\xff")).mkdir()
    return make_api("", allowed_roots=(root,))


def test_what_lies_in_the_roots_is_listed(browsed: Api, root: Path) -> None:  # noqa: F811
    assert shown(browsed) == [str(root)]
    assert shown(browsed, root) == ["data <b>/", "model/", "within/"]
    page = browsed.client.get("/browse", params={"at": str(root), "for": "data"}).text
    assert page.count('<span class="tag">model</span>') == 2
    assert page.count('<span class="tag">data</span>') == 1
    assert f"/submit?data={root}/model" in unescape(page).replace("%2F", "/")
    assert "<b>" not in page.replace("<b>Not", "")
    assert "train.csv" in shown(browsed, root / "data <b>")


@pytest.mark.parametrize(
    "way", ["..", "../outside", "model/../..", "out", "out/folder", "out-relative", "loop", "none", "pipe", ""]
)
def test_nothing_else_is(browsed: Api, root: Path, outside: Path, way: str) -> None:  # noqa: F811
    for place in (f"{root}/{way}", f"{root}/{way}/") if way else (str(outside), "/", "/etc", "relative", "..", "."):
        answer = browsed.client.get("/browse", params={"at": place})
        assert answer.status_code == 422, place
        assert "folder" not in shown_names(answer.text, outside), place


def shown_names(page: str, folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if f">{path.name}" in page]


def test_what_lies_outside_is_told_by_nothing(root: Path, outside: Path) -> None:  # noqa: F811
    told = set()
    for thing in ("folder", "file", "none", "many", "file/below"):
        for place in (outside / thing, f"{root}/../outside/{thing}"):
            with pytest.raises(Refused) as refused:
                listing(str(place), [root], [])
            told.add((refused.value.code, refused.value.message))
    assert len(told) == 1, told


def test_folders_of_the_service_stay_closed_within_a_root(make_api: Callable[..., Api], tmp_path: Path) -> None:
    (tmp_path / "data" / "artifacts" / "uploads" / "mdl_of_another").mkdir(parents=True)
    (tmp_path / "data" / "mine").mkdir()
    (tmp_path / "data" / "way-in").symlink_to(tmp_path / "data" / "artifacts")
    api = make_api("", allowed_roots=(tmp_path / "data",))
    assert "mine/" in shown(api, tmp_path / "data")
    assert not {"artifacts/", "scratch/", "way-in/"} & set(shown(api, tmp_path / "data"))
    for place in ("artifacts", "artifacts/uploads", "scratch"):
        assert api.client.get("/browse", params={"at": str(tmp_path / "data" / place)}).status_code == 422


def test_without_roots_there_is_nothing_to_browse(make_api: Callable[..., Api]) -> None:
    api = make_api("", allowed_roots=())
    assert "No folders of this server are open" in api.client.get("/browse").text
    assert api.client.get("/browse", params={"at": "/"}).status_code == 422


def test_a_large_folder_is_cut(tmp_path: Path) -> None:
    for number in range(510):
        (tmp_path / f"{number:03}").touch()
    found = listing(str(tmp_path), [tmp_path], [])
    assert (len(found.members), found.is_cut, found.members[0].name) == (500, True, "000")
    assert found.parent == ""


def test_browsing_needs_the_scope_to_submit(make_api: Callable[..., Api], root: Path) -> None:  # noqa: F811
    api = make_api("", allowed_roots=(root,), auth=True)
    asked = api.client.get("/browse")
    assert "Sign in" in asked.text
    keys = api.client.app.state.keys
    for scope, status in ((Scope.JOBS_READ, 403), (Scope.JOBS_WRITE, 200)):
        key = keys.create(owner="acme", name="x", scopes=frozenset({scope}), lives_s=None, caller=Caller())[1]
        api.client.cookies.clear()
        api.client.post("/sign-in", data={"key": key, "next": "/"}, follow_redirects=False)
        answer = api.client.get("/browse", params={"at": str(root)})
        assert answer.status_code == status, answer.text


def test_every_page_of_jobs_asks_who_is_there(make_api: Callable[..., Api]) -> None:
    """A page whose address the guard does not know would break, or stand open."""
    api = make_api("", auth=True)
    paths = [route.path for router in ROUTERS for route in router.routes if "GET" in route.methods]
    guarded = [path for path in paths if not path.startswith("/sign-")]
    assert {"/", "/browse", "/submit", "/compare", "/jobs/{job_id}"} <= set(guarded)
    for path in guarded:
        answer = api.client.get(path.replace("{job_id}", "job_1"))
        assert answer.url.path == "/sign-in" or "Sign in" in answer.text, path
