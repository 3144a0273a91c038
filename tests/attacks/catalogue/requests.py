"""Requests that are bombs: bodies, queries, paths, filters, webhooks, and what of them would be echoed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.attacks.attack import Attack, Expected, refused
from tests.attacks.target import CANARY, Target
from tests.attacks.wire import Answer

BODY = refused(
    "invalid_request",
    "invalid_json",
    "malformed_request",
    "body_too_large",
    "too_large",
    "payload_too_large",
    statuses=(400, 413, 422),
)
PATHS = refused("path_not_allowed", "invalid_request", "model_unreadable", "dataset_invalid", statuses=(422,))
NOT_FOUND = refused(
    "job_not_found",
    "upload_not_found",
    "not_found",
    "artifact_not_found",
    "repository_not_found",
    "revision_not_found",
    "invalid_request",
    statuses=(400, 404, 422),
)
ADDRESS = refused("address_not_allowed", "invalid_request", statuses=(400, 422))
NAME = Expected(ADDRESS.statuses | {201}, ADDRESS.codes)  # what a name means is looked at when it is called
_NAMES = ("http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/", "https://localhost/")
QUERY = Expected(frozenset({200, 400, 414, 422, 429, 431}), frozenset({"invalid_request"}), frozenset({400, 414, 431}))


def _body(target: Target, made: bytes, path: str) -> Answer:
    return target.ask("POST", path, made, Content_Type="application/json")


def body(
    name: str, make: Callable[[], bytes], path: str = "/v1/jobs", *, short: bool = False, expected: Expected = BODY
) -> Attack:
    """Make the attack that posts a body."""
    return Attack(f"body: {name}", partial(_body, path=path), expected, make, short=short)


def _get(target: Target, _made: None, path: str) -> Answer:
    return target.ask("GET", path)


def get(name: str, path: str, expected: Expected, *, row: str = "", short: bool = False) -> Attack:
    """Make the attack that reads a path."""
    return Attack(name, partial(_get, path=path), expected, row=row, short=short)


def _submit(target: Target, _made: None, changes: Callable[[Target], dict[str, Any]]) -> Answer:
    return target.ask("POST", "/v1/jobs", target.spec(**changes(target)))


def submit(
    name: str,
    changes: Callable[[Target], dict[str, Any]],
    *,
    expected: Expected = PATHS,
    row: str = "",
    short: bool = False,
) -> Attack:
    """Make the attack that submits a job."""
    return Attack(f"submit: {name}", partial(_submit, changes=changes), expected, row=row, short=short)


def _relative(target: Target, _made: None) -> Answer:
    """C1: a Hub id that is a folder of the working directory. The Hub is out of reach, so the job may only fail to find it."""
    answer = target.ask("POST", "/v1/jobs", target.spec(data="uploads"))
    if answer.status == 202:
        target.ask("POST", f"/v1/jobs/{answer.document['id']}/cancel")
        return Answer(
            422, {"content-type": "application/problem+json"}, b'{"code":"invalid_request","detail":"left to the job"}'
        )
    return answer


def _oracle(target: Target, _made: None) -> list[Answer]:
    """M8: what exists outside and what does not get the same answer."""
    outside = target.folder / "outside"
    there = (
        "/etc/passwd",
        "/root",
        "/proc/1/environ",
        "/dev",
        str(outside),
        str(outside / "loop"),
        str(outside / "train.jsonl"),
    )
    asked = [path for own in there for path in (own, f"{own}-not", f"{own}/not", f"{own}/" + "n" * 300)]
    answers = [target.ask("POST", "/v1/jobs", target.spec(model=path)) for path in asked]
    told = {(answer.status, answer.code, answer.document.get("detail")) for answer in answers}
    assert len(told) == 1, f"existence shows: {told}"
    return answers


def _webhook(target: Target, _made: None, url: str) -> Answer:
    """A webhook to an address inside: refused at once, or, where the name says nothing, when it is resolved."""
    answer = target.ask("POST", "/v1/webhooks", {"url": url})
    if answer.status == 201:
        target.ask("DELETE", f"/v1/webhooks/{answer.document['id']}")
    return answer


def webhook(url: str, *, short: bool = False) -> Attack:
    """Make the attack that has the service call an address."""
    return Attack(f"webhook: {url[:60]}", partial(_webhook, url=url), NAME if url in _NAMES else ADDRESS, short=short)


def _other_tenant(target: Target, _made: None) -> list[Answer]:
    job, data = target.ids["job"], target.ids["dataset"]
    asked = [
        *(("GET", path) for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/report", f"/v1/jobs/{job}/events")),
        *(("GET", path) for path in (f"/v1/jobs/{job}/artifacts", f"/v1/jobs/{job}/download", f"/v1/datasets/{data}")),
        *(("POST", path) for path in (f"/v1/jobs/{job}/cancel", f"/v1/jobs/{job}/retry")),
        ("DELETE", f"/v1/datasets/{data}"),
        ("GET", f"/hub/api/models/jobs/{job}"),
    ]
    return [target.ask(method, path) for method, path in asked]


def _lists(target: Target, _made: None) -> Answer:
    """Another tenant's things are in no list and no filter."""
    for path in ("/v1/jobs", f"/v1/jobs?metadata[name]={CANARY}", "/v1/datasets", "/v1/webhooks"):
        answer = target.ask("GET", path)
        assert answer.status == 200, (path, answer.status)
        assert not any(own.encode() in answer.body for own in target.ids.values()), path
    return target.ask("GET", f"/v1/jobs?after={target.ids['job']}&limit=100")


def _sign_out(target: Target, _made: None) -> Answer:
    """L12: a session that was signed out is none."""
    form = f"key={target.keys['acme']}&next=/".encode()
    given = {"Content_Type": "application/x-www-form-urlencoded", "Origin": target.service.url, "Authorization": ""}
    from tests.attacks import wire

    headers = {"Content-Type": given["Content_Type"], "Origin": given["Origin"]}
    made = wire.ask(target.port, "POST", "/sign-in", headers, form)
    assert made.status == 303, made.status
    cookie = made.headers["set-cookie"].partition(";")[0]
    assert wire.ask(target.port, "GET", "/v1/jobs", {"Cookie": cookie}).status == 200
    assert wire.ask(target.port, "POST", "/sign-out", headers | {"Cookie": cookie}).status == 303
    return wire.ask(target.port, "GET", "/v1/jobs", {"Cookie": cookie})


_DEEP = 200_000
ATTACKS = [
    body("too deep", lambda: b"[" * _DEEP, short=True),
    body("objects too deep", lambda: b'{"a":' * _DEEP + b"1" + b"}" * _DEEP),
    body("too wide", lambda: b'{"model":[' + b"0," * 500_000 + b"0]}"),
    body("a number of a million digits", lambda: b'{"seed":' + b"9" * 1_000_000 + b"}"),
    body("an infinite number", lambda: b'{"model":"a/b","task":"glue/sst2","sparsity":1e999}', short=True),
    body("NaN", lambda: b'{"model":"a/b","task":"glue/sst2","sparsity":NaN}'),
    body("lone surrogates", lambda: rb'{"model":"\ud800","task":"glue/sst2","sparsity":0.5}', short=True),
    body("NUL in texts", lambda: rb'{"model":"a\u0000b","task":"glue/sst2","sparsity":0.5}'),
    body("no UTF-8", lambda: b'{"model":"\xff"}'),
    body(
        "a key twice",  # the last one counts, and is confined
        lambda: b'{"model":"a/b","model":"/etc","task":"glue/sst2","sparsity":0.5}',
        expected=refused("path_not_allowed"),
    ),
    body("a hundred megabytes", lambda: b'{"model":"' + b"a" * 10**8 + b'"}'),
    body("gzip", lambda: b"\x1f\x8b\x08" + b"\0" * 4096),
    body(
        "thousands of targets",
        lambda: b'{"model":"a/b","task":"glue/sst2","targets":[' + b'{"sparsity":0.5},' * 20_000 + b'{"sparsity":0.5}]}',
    ),
    body(
        "thousands of keys of metadata",
        lambda: (
            b'{"model":"a/b","task":"glue/sst2","sparsity":0.5,"metadata":{'
            + b",".join(b'"k%d":"v"' % index for index in range(40_000))
            + b"}}"
        ),
    ),
    body("half a million wrong columns", lambda: b'{"task":{"columns":{"text":[' + b"1," * 450_000 + b"1]}}}", short=True),
    body("a hundred thousand unknown fields", lambda: b"{" + b",".join(b'"%x":1' % n for n in range(100_000)) + b"}"),
    body("a name of 900 KB", lambda: b'{"model":"a/b","task":"glue/sst2","sparsity":0.5,"' + b"x" * 900_000 + b'":1}'),
    body("a webhook too deep", lambda: b"[" * _DEEP, "/v1/webhooks"),
    get("query: a regex bomb in a filter", "/v1/jobs?metadata[run]=" + "(a%2B)%2B" * 40 + "$", QUERY, short=True),
    get("query: a filter of wild cards", "/v1/jobs?model=" + "%25" * 400, QUERY),
    get("query: ten thousand filters", "/v1/jobs?" + "&".join(f"metadata[k{index}]=v" for index in range(3000)), QUERY),
    get("query: NUL", "/v1/jobs?metadata[a]=%00", QUERY),
    get("query: no UTF-8", "/v1/jobs?metadata[a]=%ff%fe", QUERY),
    get("query: a limit of many digits", "/v1/jobs?limit=" + "9" * 5000, QUERY),
    get(
        "query: an order that is code",
        "/v1/jobs?after=job_x%27%20OR%201=1--",
        Expected(QUERY.statuses | {404}, QUERY.codes | {"job_not_found"}, QUERY.bare),
    ),
    get("path: up in an artifact", "/v1/jobs/job_x/artifacts/..%2f..%2f..%2fetc%2fpasswd", NOT_FOUND, short=True),
    get("path: up without an escape", "/v1/jobs/job_x/artifacts/../../../../etc/passwd", NOT_FOUND),
    get("path: up, escaped twice", "/v1/jobs/job_x/artifacts/%252e%252e%252fetc%252fpasswd", NOT_FOUND),
    get("path: up in the Hub", "/hub/jobs/job_x/resolve/main/..%2f..%2fetc%2fpasswd", NOT_FOUND),
    get("path: NUL", "/v1/jobs/job_%00", NOT_FOUND),
    get(
        "path: up in the dashboard's files",
        "/static/..%2f..%2fsettings.py",
        Expected(frozenset({404, 400}), frozenset({"not_found"}), frozenset({404, 400})),
    ),
    Attack("path: what exists outside the roots", _oracle, PATHS, row="M8", short=True),
    submit("a link that leads out", lambda target: {"data": str(target.root / "link")}, row="M8", short=True),
    submit("a link to a link", lambda target: {"data": str(target.root / "chain")}, row="M8"),
    submit("a link to itself", lambda target: {"model": str(target.root / "loop")}, row="M8"),
    submit("a file that is a link", lambda target: {"data": str(target.root / "linked")}, row="M8", short=True),
    submit("a path with ..", lambda target: {"data": f"{target.root}/data/../../outside"}, row="M8"),
    submit("a FIFO", lambda target: {"model": str(target.root / "fifo")}, row="M8"),
    submit("a model whose config is a FIFO", lambda target: {"model": str(target.root / "piped")}, row="M8"),
    submit("a device", lambda _target: {"model": "/dev/zero"}, row="M8"),
    submit("a path of NUL", lambda _target: {"model": "/a\0b"}, row="M8"),
    submit("a path of a megabyte's length", lambda _target: {"model": "/" + "a" * 100_000}, row="M8"),
    submit("a path with a user's home", lambda _target: {"model": "~root"}, row="M8"),
    submit("a relative path", lambda _target: {"data": "./uploads"}, row="C1", short=True),
    submit("a relative path upward", lambda _target: {"data": "../outside"}, row="C1"),
    submit(
        "the data folder by path",
        lambda target: {"data": str(target.service.backend.data_dir / "uploads")},
        row="C1",
        short=True,
    ),
    submit("a Hub id with ..", lambda _target: {"model": "a/.."}, row="C1"),
    submit("a URL in place of a data set", lambda _target: {"data": "https://evil.example/data"}, row="C1"),
    submit("a name with a line break", lambda _target: {"model": "org/na\nme"}),
    submit("a name that turns around", lambda _target: {"model": "org/\u202eeman"}, short=True),
    submit("a revision that leads out", lambda _target: {"model": "org/name", "data": "org/data", "revision": "../../main"}),
    submit(
        "another tenant's upload",
        lambda target: {"data": target.ids["dataset"]},
        expected=refused("upload_not_found", "invalid_request", statuses=(404, 422)),
        row="C1",
        short=True,
    ),
    Attack(
        "submit: a folder of the working directory",
        _relative,
        refused("invalid_request", "path_not_allowed", "dataset_invalid", statuses=(422,)),
        row="C1",
        short=True,
    ),
    Attack(
        "another tenant's job and upload",
        _other_tenant,
        refused("job_not_found", "upload_not_found", "not_found", "repository_not_found", statuses=(404,)),
        row="C1",
        short=True,
    ),
    Attack(
        "another tenant's things in lists",
        _lists,
        Expected(frozenset({200, 404, 400, 422}), frozenset({"job_not_found", "invalid_request"})),
        row="C1",
    ),
    Attack("a session after its sign-out", _sign_out, refused("unauthenticated", statuses=(401,)), row="L12", short=True),
    *map(
        webhook,
        (
            "http://127.0.0.1:1/",
            "http://[::1]/",
            "http://0.0.0.0/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::ffff:127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[fe80::1%25eth0]/",
            "http://10.0.0.1/",
            "file:///etc/passwd",
            "gopher://127.0.0.1:6379/_FLUSHALL",
            "http://user:pw@127.0.0.1/",
            "http://127.1/",
            "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
            "https://localhost/",
            "http://a\r\nHost: b/",
        ),
    ),
]
