"""Routes of API keys: create, list, revoke. For operators (scope ``admin``), and for who keeps a tenant (``tenant:admin``)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from app.api.deps import Keys, TenantAdmin, insufficient, of_own_tenant, sent_json
from app.errors import ProblemDetails
from app.keys.records import Scope
from app.keys.schemas import TENANT, KeyCreate, KeyCreated, KeyList, KeyView

router = APIRouter(prefix="/v1/keys", tags=["keys"], responses={"default": {"model": ProblemDetails}})

KeyId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_\-]+$")]

_DAY_S = 86_400


@router.post("", status_code=201, operation_id="createKey", dependencies=[Depends(sent_json)])
def create_key(body: KeyCreate, keys: Keys, caller: TenantAdmin) -> KeyCreated:
    """Make a key for a tenant. Its text is in this answer and nowhere else."""
    of_own_tenant(caller, body.tenant)
    if Scope.ADMIN not in caller.scopes and (beyond := sorted(set(body.scopes) - caller.scopes)):
        raise insufficient(beyond[0], caller)  # nobody makes a key that may do more than they may
    lives_s = None if body.expires_days is None else body.expires_days * _DAY_S
    key, text = keys.create(owner=body.tenant, name=body.name, scopes=frozenset(body.scopes), lives_s=lives_s, caller=caller)
    return KeyCreated.with_text(key, text)


@router.get("", operation_id="listKeys")
def list_keys(
    keys: Keys, caller: TenantAdmin, tenant: Annotated[str | None, Query(max_length=64, pattern=TENANT)] = None
) -> KeyList:
    """List keys, newest first, the revoked ones too."""
    return KeyList(data=[KeyView.of(key) for key in keys.list(of_own_tenant(caller, tenant))])


@router.delete("/{key_id}", operation_id="revokeKey")
def revoke_key(key_id: KeyId, keys: Keys, caller: TenantAdmin) -> KeyView:
    """Revoke a key; it is worthless from now on."""
    return KeyView.of(keys.revoke(key_id, caller=caller, owner=of_own_tenant(caller, None)))
