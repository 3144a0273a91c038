"""Settings, from the environment (``COPPICE_*``). The defaults are the local profile: SQLite, a folder broker, local files.

Every process of the service reads the same settings; the fields, a module for each theme, say what they are.
"""

from __future__ import annotations

from functools import cache

from pydantic import ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from app.settings.access import Access
from app.settings.edges import Edges
from app.settings.isolation import Isolation, Sandbox
from app.settings.keeping import Keeping
from app.settings.places import Places
from app.settings.running import Running
from app.settings.sign_in import SignIn
from app.settings.telling import Telling
from app.settings.workers import TAG, Workers
from pruning_core.spec.messages import message_of

__all__ = ["PREFIX", "TAG", "DataFolderUnusable", "Sandbox", "Settings", "SettingsInvalid", "get_settings"]

PREFIX = "COPPICE_"
_FEWEST_CONNECTIONS = 2  # a worker's lease is renewed while its job writes


class SettingsInvalid(Exception):
    """A variable of the environment is invalid; the message names it and says what would be right."""


class DataFolderUnusable(SettingsInvalid):
    """The local profile's files cannot be kept where the environment says."""

    def __init__(self, error: OSError) -> None:
        where = f" {error.filename}" if error.filename else ""
        super().__init__(f"COPPICE_DATA_DIR: the folder{where} cannot be used ({error.strerror})")


# pydantic takes the fields of the last base first: read from the end, this is the order of the page of settings. It takes one
# validator of a name, so that those of the bases have names of their own; a test sees to it.
class Settings(Workers, Keeping, Isolation, Running, Telling, SignIn, Access, Edges, Places):
    """The settings of the service, which its operator may change."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    @model_validator(mode="after")
    def _one_secret_for_all(self) -> Settings:
        if self.auth and self.database_url and not self.secret.get_secret_value():
            raise ValueError("COPPICE_SECRET is needed with COPPICE_AUTH, as processes on several hosts must share it")
        return self

    @model_validator(mode="after")
    def _connections_for_all(self) -> Settings:
        if self.connections_a_process is not None and self.connections_a_process < _FEWEST_CONNECTIONS:
            raise ValueError(
                f"COPPICE_DATABASE_CONNECTIONS={self.database_connections} leaves each of COPPICE_DATABASE_PROCESSES="
                f"{self.database_processes} less than {_FEWEST_CONNECTIONS} connections; allow "
                f"{_FEWEST_CONNECTIONS * self.database_processes}, or put PgBouncer between and set COPPICE_DATABASE_POOLER"
            )
        return self

    @model_validator(mode="after")
    def _people_beside_keys(self) -> Settings:
        if self.oidc_issuer and not self.auth:
            raise ValueError("COPPICE_OIDC_ISSUER needs COPPICE_AUTH=true: without it anybody may do everything unasked")
        for name in ("oidc_client_id", "oidc_roles"):
            if self.oidc_issuer and not getattr(self, name):
                raise ValueError(f"COPPICE_{name.upper()} is needed with COPPICE_OIDC_ISSUER; see the guide to sign-in")
        if self.oidc_client_secret_file is not None and self.oidc_client_secret.get_secret_value():
            raise ValueError("COPPICE_OIDC_CLIENT_SECRET_FILE takes the place of COPPICE_OIDC_CLIENT_SECRET; set one of them")
        return self

    @model_validator(mode="after")
    def _events_need_redis(self) -> Settings:
        if self.worker_events and not self.broker_url:
            raise ValueError("COPPICE_WORKER_EVENTS needs COPPICE_BROKER_URL: a folder carries no events")
        return self

    @property
    def resolved_sandbox(self) -> Sandbox:
        """The sandbox to use, never ``AUTO``."""
        if self.sandbox is not Sandbox.AUTO:
            return self.sandbox
        return Sandbox.REQUIRED if self.auth else Sandbox.PREFERRED


@cache
def get_settings() -> Settings:
    """Read the environment, once a process.

    Raises:
        SettingsInvalid: A variable is invalid.
    """
    try:
        return Settings()
    except ValidationError as error:
        # Values are left out of the message: a URL may hold a password.
        lines = [
            (f"COPPICE_{str(item['loc'][0]).upper()}: " if item["loc"] else "") + message_of(item)
            for item in error.errors(include_input=False)
        ]
        raise SettingsInvalid("; ".join(lines)) from None
