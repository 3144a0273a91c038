"""The route of the key that bundles are verified with."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.api.deps import Owner
from app.errors import ProblemDetails
from app.refusals import NotFound
from app.settings import Settings
from app.signing import PublicKey, public_keys

router = APIRouter(prefix="/v1", tags=["signing"], responses={"default": {"model": ProblemDetails}})


class PublicKeyView(BaseModel):
    """A public key."""

    key_id: str = Field(description="The sha256 of the PEM form, which signatures name their key by.")
    public_key: str = Field(description="PEM: write it to a file, and give that to coppice verify --key.")


class SigningKeyView(PublicKeyView):
    """The key that bundles are signed with now."""

    object: Literal["signing_key"] = "signing_key"
    algorithm: Literal["ecdsa"] = "ecdsa"
    format: str = Field(
        default="https://model_signing/signature/v1.0",
        description="Type of what is signed: a manifest of the bundle's files, as OpenSSF Model Signing defines it.",
    )
    earlier: list[PublicKeyView] = Field(description="Keys of earlier bundles, which are not signed with any more.")


def _keys(request: Request) -> tuple[PublicKey, ...]:
    return public_keys(cast("Settings", request.app.state.settings))


@router.get("/signing-key", operation_id="getSigningKey")
def get_signing_key(_owner: Owner, keys: Annotated[tuple[PublicKey, ...], Depends(_keys)]) -> SigningKeyView:
    """Publish the public key that bundles are signed with.

    To trust a bundle for it, have the operator confirm the key's id by another way: who could forge bundles here could forge
    this answer, too.
    """
    if not keys:
        message = "this service does not sign its bundles: its operator gives it a key with COPPICE_SIGNING_KEY"
        raise NotFound("no_signing_key", message)
    current, *earlier = keys
    return SigningKeyView(
        key_id=current.id,
        public_key=current.pem,
        earlier=[PublicKeyView(key_id=key.id, public_key=key.pem) for key in earlier],
    )
