"""Routes of whoever asks: who they are here, and the end of a command line's login."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.api.deps import Reader
from app.errors import ProblemDetails
from app.keys.records import Caller, Scope
from app.keys.roles import Role, role_of
from app.people.forms import is_login
from app.refusals import Conflict

if TYPE_CHECKING:  # its libraries are there only where people sign in by a provider
    from app.people.service import PeopleService

router = APIRouter(prefix="/v1/session", tags=["session"], responses={"default": {"model": ProblemDetails}})


class SessionView(BaseModel):
    """Who asks, and what they may do."""

    object: Literal["session"] = "session"
    by: Literal["nobody", "key", "person"] = Field(description="`nobody`: the service asks for no key.")
    id: str = Field(description="Of the key or of the person, as in the audit log; empty: nobody.")
    name: str = Field(description="Of the person, as the provider tells it; empty for keys.")
    tenant: str
    scopes: list[Scope]
    role: Role | None = Field(description="The highest role whose scopes are all there.")

    @classmethod
    def of(cls, caller: Caller) -> SessionView:
        """Show a caller."""
        by = "person" if caller.person is not None else "key" if caller.key_id else "nobody"
        return cls(
            by=by,
            id=caller.key_id,
            name="" if caller.person is None else caller.person.name,
            tenant=caller.owner,
            scopes=sorted(caller.scopes),
            role=role_of(caller.scopes),
        )


@router.get("", operation_id="getSession")
def get_session(caller: Reader) -> SessionView:
    """Read who you are here: by which key or person, for which tenant, and with which scopes."""
    return SessionView.of(caller)


@router.delete("", operation_id="endSession", status_code=204)
def end_session(request: Request, _caller: Reader) -> None:
    """End the login of the command line that asks. A key is revoked, and a provider's token left to expire, instead."""
    people = cast("PeopleService | None", request.app.state.people)
    text = request.headers.get("authorization", "").partition(" ")[2].strip()
    if people is None or not is_login(text):
        raise Conflict("no_login", "this is no login of a command line; a key is revoked by DELETE /v1/keys/{key_id}")
    people.end_login(text)
