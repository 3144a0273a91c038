"""What the API takes from whom: addresses, connections, bodies, uploads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from app.settings.parts import Network, split_list


class Edges(BaseSettings):
    """Limits of requests and of uploads."""

    host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port that the API listens on; 0 picks a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names that clients call the service by while COPPICE_AUTH is off, e.g. pruning.example.org, separated by "
        "commas; addresses and names without a dot always count. With keys any name does.",
    )
    max_body_bytes: int = Field(default=2**20, ge=1024, description="Largest JSON request body.")

    max_upload_bytes: int = Field(default=32 * 2**30, ge=1024, description="Largest upload, packed or unpacked.")
    max_uploads_bytes: int = Field(default=256 * 2**30, ge=1024, description="Uploads of one owner together.")
    uploads_at_once: int = Field(default=4, ge=1, description="Uploads of one owner that may be under way at once.")
    inspections: int = Field(
        default=2,
        ge=1,
        description="Archives that one API process unpacks at once, and as many models and data sets that it looks at; each "
        "in a process of its own.",
    )
    inspections_per_owner: int = Field(default=1, ge=1, description="How many of these may be of one owner.")
    inspection_wait_s: float = Field(default=30, gt=0, description="A request waits so long for its turn, then gets `busy`.")
    inspection_memory_bytes: int = Field(
        default=2**28, ge=2**26, description="Memory that such a process may take to look at a model or a data set."
    )
    body_patience_s: float = Field(default=30, gt=0, description="A request whose body makes no progress for so long is ended.")
    head_patience_s: float = Field(
        default=15, gt=0, description="A connection on which the head of a request is not complete after so long is closed."
    )
    send_patience_s: float = Field(
        default=60, gt=0, description="A connection whose client takes nothing of an answer for so long is closed."
    )
    slowest_bytes_per_s: float = Field(
        default=1024,
        gt=0,
        description="Bodies and answers that go more slowly than this use up the patience with them, as standing still does.",
    )
    keep_alive_s: int = Field(
        default=5, ge=1, description="An idle connection is kept so long; longer than a proxy in front keeps its own, if any."
    )
    max_head_bytes: int = Field(default=2**15, ge=2**12, description="Longest head of a request: its line and its headers.")
    max_connections: int = Field(default=4096, ge=1, description="Connections that may be open at once.")
    max_connections_per_address: int = Field(
        default=2048,
        ge=1,
        description="The same from one address (IPv6: one /64), except from a trusted proxy.",
    )
    end_patience_s: float = Field(
        default=5, gt=0, description="Requests that run when the API is told to end may go on for so long."
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description="Networks of the proxies in front, e.g. 10.0.0.0/8: what they say in X-Forwarded-For and "
        "X-Forwarded-Proto of address and scheme is believed. Empty: nobody is believed.",
    )

    _split_networks_and_names = field_validator("trusted_proxies", "allowed_hosts", mode="before")(split_list)
