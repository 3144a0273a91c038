"""Who may ask, and what is signed: keys and secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app.settings.parts import long_enough, split_list, split_paths


class Access(BaseSettings):
    """Keys of callers, the server's secret, keys of signatures."""

    auth: bool = Field(default=False, description="Whether callers must show an API key; see coppice keys.")
    secret: SecretStr = Field(
        default=SecretStr(""),
        description="What keys are hashed with, the same in every process, of at least 32 characters (openssl rand -hex 32); "
        "empty: a file of the data folder.",
    )
    secret_old: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Secrets that count besides COPPICE_SECRET while it is replaced, separated by commas; see the guide to "
        "operations.",
    )
    signing_key: Path | None = Field(
        default=None,
        description="PEM file of the private key (EC P-256) that workers sign finished bundles with; the API needs none. "
        "Empty: with SQLite in data_dir a key is made there once, else bundles are not signed.",
    )
    signing_public_keys: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="PEM files of public keys that the API publishes for coppice verify, the current one first, then those of "
        f"earlier bundles, separated by {os.pathsep!r}; empty: the one of COPPICE_SIGNING_KEY.",
    )
    requests_per_minute: int = Field(
        default=1200,
        ge=1,
        description="Requests of one key, all of which may come at once. Each API process counts for itself.",
    )

    _split_keys = field_validator("signing_public_keys", mode="before")(split_paths)
    _split_secrets = field_validator("secret_old", mode="before")(split_list)

    @field_validator("secret", "secret_old")
    @classmethod
    def _long_enough_secrets(cls, value: SecretStr | tuple[SecretStr, ...]) -> SecretStr | tuple[SecretStr, ...]:
        long_enough(*(value if isinstance(value, tuple) else (value,)))
        return value
