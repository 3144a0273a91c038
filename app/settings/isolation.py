"""What jobs are kept from: files, the network, the Hub's token."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app.settings.parts import split_list


class Sandbox(StrEnum):
    """How jobs' processes are kept from what is not theirs."""

    AUTO = "auto"
    REQUIRED = "required"
    PREFERRED = "preferred"
    OFF = "off"


class Isolation(BaseSettings):
    """Sandbox, user and Hub of jobs' processes."""

    sandbox: Sandbox = Field(
        default=Sandbox.AUTO,
        description="Whether a job's process must be kept from files that are not its own and from the network: `required` (a "
        "worker does not start where the host cannot), `preferred` (as far as the host can), `off` (its environment is cleaned "
        "all the same); `auto` is required with COPPICE_AUTH, else preferred. coppice doctor says what a host can.",
    )
    job_user: str = Field(
        default="10002",
        pattern=r"^(\d{1,9}(:\d{1,9})?)?$",
        description="User and group, as numbers (10002:10002), that a job's process becomes where the worker runs as root; "
        "empty: it stays the worker's.",
    )
    hub_token_tenants: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Tenants whose jobs fetch from the Hub with the worker's HF_TOKEN, separated by commas; * is all. "
        "Others fetch what is public. Without COPPICE_AUTH all jobs do.",
    )
    hub_max_bytes: int = Field(
        default=128 * 2**30, ge=2**20, description="Largest model or data set that is fetched from the Hub."
    )
    hub_timeout_s: float = Field(default=3600, gt=0, description="Longest time that fetching one of them may take.")

    _split_tenants = field_validator("hub_token_tenants", mode="before")(split_list)

    @property
    def resolved_job_user(self) -> tuple[int, int] | None:
        """The user and the group to become for a job; None: the worker's own."""
        user, _colon, group = self.job_user.partition(":")
        return (int(user), int(group or user)) if user else None
