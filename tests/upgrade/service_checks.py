"""What a service of today must answer about the state that an earlier release has left, whichever database that is in."""

from __future__ import annotations

import re
from typing import Any

import httpx2

from tests.upgrade.generation import Generation, OldState, differences
from tests.upgrade.product import PruneSpec

_REUSED = {"PUT": (409, "job_exists"), "POST": (422, "idempotency_key_reused")}


def check_answers(state: OldState, url: str, *callers: str) -> None:
    """Ask again what the earlier release was asked: nothing that it said may be gone, or be something else."""
    asked = [answer for answer in state.record["answers"] if answer["who"] in callers]
    assert {answer["who"] for answer in asked} == set(callers)
    for answer in asked:
        now = httpx2.get(url + answer["path"], headers=state.headers(answer["who"]))
        assert now.status_code == 200, (answer["path"], now.text)
        lost = differences(now.json(), _without_places(answer["body"]), answer["path"])
        assert not lost, lost


def _without_places(body: Any) -> Any:
    """Name an upload in a report by its id, not by its folder, which earlier releases told to everybody."""
    model = body.get("model") if isinstance(body, dict) and "frontier" in body else None
    return body if model is None else body | {"model": re.sub(r"^/.*/(mdl_[0-9a-f]{64})$", r"\1", model)}


def check_repeats(state: OldState, url: str, old: Generation, *callers: str) -> None:
    """Send the requests of before again: each gives the job that it made, and another body under its name is refused.

    A request is repeated as it was sent; as a client of that release sends it, with every field of then; and as a client of
    today sends it, with every field of today. It means the same each time.
    """
    specs = old.specs()
    repeated = [request for request in state.record["requests"] if request["who"] in callers]
    assert {request["who"] for request in repeated} == set(callers)
    for request in repeated:
        forms, name = [request["body"]], request["name"].removeprefix("spec-").removeprefix("key of ")
        if name in specs:
            sent, meant = specs[name]
            beside = {field: request["body"][field] for field in ("metadata", "priority") if field in request["body"]}
            forms += [meant | beside, PruneSpec.model_validate(sent).model_dump(mode="json") | beside]
        for number, form in enumerate(forms):
            answer = _send(state, url, request, form)
            assert answer.status_code == 202, (request["name"], number, answer.text)
            found = {field: answer.json()[field] for field in request["job"]}
            assert found == request["job"], (request["name"], number, found, request["job"])
        other = _send(state, url, request, request["body"] | {"seed": 99})
        refusal = (other.status_code, other.json()["code"])
        assert refusal == _REUSED[request["how"]], (request["name"], refusal)


def _send(state: OldState, url: str, request: dict[str, Any], body: dict[str, Any]) -> httpx2.Response:
    headers = state.headers(request["who"])
    if request["how"] == "PUT":
        return httpx2.put(f"{url}/v1/jobs/{request['name']}", json=body, headers=headers)
    return httpx2.post(f"{url}/v1/jobs", json=body, headers=headers | {"Idempotency-Key": request["name"]})
