"""``coppice keys``: manage API keys, in the service's database or, with ``--url``, over HTTP by a key with the scope admin."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import BaseModel, ValidationError
from rich.text import Text

from coppice import console
from coppice.client import Client
from coppice.commands import options
from coppice.console import ExitCode, explained, fail, fail_all, joined, sentences
from coppice.installation import require_server
from coppice.types import ApiKey, NewApiKey

keys = typer.Typer(
    help="Make, list and revoke API keys: on the service's host with the service's settings, elsewhere with --url and a key "
    "that has the scope admin.",
    no_args_is_help=True,
)

Url = Annotated[
    str | None, typer.Option(help="Address of the service; without it, the database of this host's COPPICE_* settings.")
]


@keys.command()
def create(
    tenant: Annotated[
        str, typer.Option(help="Tenant that the key belongs to. Only this tenant's keys see what its jobs make.")
    ],
    name: Annotated[str, typer.Option(help="Name to recognise the key by.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="jobs:read, jobs:write, tenant:admin (keys and audit log of its tenant), jobs:priority (its priorities count "
            "before other tenants, too) or admin; repeatable. Default: jobs:read and jobs:write."
        ),
    ] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days after which the key expires; default: never.")] = None,
    url: Url = None,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """Make a key. Its text is printed once, alone on stdout, and stored nowhere.

    Example: export COPPICE_API_KEY=$(coppice keys create --tenant acme)
    """
    with explained(_worded):
        if url is not None:
            with Client(url, api_key=key) as client:
                made = client.create_key(tenant, name=name, scopes=scope, expires_days=expires_days)
        else:
            made = _create_here(tenant, name, scope, expires_days)
    if json:
        typer.echo(made.model_dump_json())
        return
    console.err.print(f"{made.id} for {made.tenant}: {', '.join(made.scopes)}", highlight=False, markup=False)
    typer.echo(made.key)


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's keys.")] = None,
    url: Url = None,
    key: options.ApiKey = None,
    json: options.Json = False,
) -> None:
    """List keys, newest first, with the revoked ones."""
    with explained():
        if url is not None:
            with Client(url, api_key=key) as client:
                found = client.keys(tenant)
        else:
            found = _list_here(tenant)
    if json:
        typer.echo(f"[{', '.join(item.model_dump_json() for item in found)}]")
        return
    rows = [
        (item.id, _state(item), item.tenant, item.name, " ".join(item.scopes), f"{item.created_at:%Y-%m-%d}") for item in found
    ]
    headings = ("id", "state", "tenant", "name", "scopes", "created")
    console.show_rows(headings, [[Text(console.plain(cell)) for cell in row] for row in rows])


@keys.command()
def revoke(key_id: str, url: Url = None, key: options.ApiKey = None) -> None:
    """Revoke a key. No request is accepted with it from now on."""
    with explained():
        if url is not None:
            with Client(url, api_key=key) as client:
                client.revoke_key(key_id)
        else:
            _revoke_here(key_id)
    console.out.print(f"{key_id}: revoked", highlight=False)


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.expires_at is None else f"until {key.expires_at:%Y-%m-%d}"


def _worded(field: str, message: str) -> str:
    """Speak of the command's options where the service speaks of fields."""
    option = {"scopes": "--scope", "expires_days": "--expires-days"}.get(name := field.partition(".")[0], f"--{name}")
    return joined(option if name else "", message)


def _create_here(tenant: str, name: str, scopes: list[str] | None, expires_days: int | None) -> NewApiKey:
    require_server()
    from app.keys.records import Caller
    from app.keys.schemas import KeyCreate, KeyCreated
    from coppice.commands.service import open_keys

    given: dict[str, object] = {"tenant": tenant, "name": name, "expires_days": expires_days}
    try:
        request = KeyCreate.model_validate(given | ({} if scopes is None else {"scopes": scopes}))
    except ValidationError as error:
        fail_all(sentences(error, _worded, KeyCreate), ExitCode.BAD_INPUT)
    lives_s = None if request.expires_days is None else request.expires_days * 86_400
    with open_keys() as service:
        made, text = service.create(
            owner=request.tenant, name=request.name, scopes=frozenset(request.scopes), lives_s=lives_s, caller=Caller()
        )
    return NewApiKey.model_validate(KeyCreated.with_text(made, text).model_dump())


def _list_here(tenant: str | None) -> list[ApiKey]:
    require_server()
    from app.keys.schemas import KeyView
    from coppice.commands.service import open_keys

    with open_keys() as service:
        return [ApiKey.model_validate(_document(KeyView.of(item))) for item in service.list(tenant)]


def _revoke_here(key_id: str) -> None:
    require_server()
    from app.keys.records import Caller
    from app.refusals import NotFound
    from coppice.commands.service import open_keys

    with open_keys() as service:
        try:
            service.revoke(key_id, caller=Caller())
        except NotFound as error:
            fail(error.message, ExitCode.BAD_INPUT)


def _document(view: BaseModel) -> dict[str, object]:
    return view.model_dump()
