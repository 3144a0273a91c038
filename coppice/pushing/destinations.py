"""Where a bundle can be pushed to, read from what the user wrote."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from coppice.connection import address_of
from coppice.errors import BadArgument

FORMS = "hf://ORG/NAME[@REVISION], s3://BUCKET/PREFIX, oci://REGISTRY/NAME:TAG, or http(s)://HOST of a Coppice service"

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_HUB = re.compile(rf"({_PART}/{_PART})(?:@([\w./-]{{1,200}}))?", re.ASCII)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_OCI = re.compile(
    r"([A-Za-z0-9.-]+(?::\d{1,5})?)/([a-z0-9]+(?:[._/-]+[a-z0-9]+)*):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})", re.ASCII
)
# Hosts of the Hub's pages, whose addresses people copy; HF_ENDPOINT names another.
_HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_HUB_PAGE = re.compile(rf"/(?:models/)?({_PART}/{_PART})(?:/(?:tree|blob|commit|commits)/([\w./-]{{1,200}}))?/?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A model repository of the Hub, and the branch of it to write to; None: its main one."""

    name: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in an object store: a bucket, and what stands before each name in it, without slashes at its ends."""

    name: str
    prefix: str

    @property
    def url(self) -> str:
        """The address, as it is written."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class OciArtifact:
    """A tag in a registry of containers."""

    registry: str
    name: str
    tag: str


@dataclass(frozen=True, slots=True)
class AnotherService:
    """A Coppice service."""

    url: str


Destination = HubRepository | Bucket | OciArtifact | AnotherService


def parse(text: str, revision: str | None) -> Destination:
    """Read a destination.

    Args:
        text: What the user wrote.
        revision: The branch that the user named apart from it; for the Hub alone.

    Raises:
        BadArgument: It is none, or is a page of the Hub; the message says which there are.
    """
    scheme, found, rest = text.strip().partition("://")
    if not found:
        like = f"; did you mean hf://{text.strip()}?" if _HUB.fullmatch(text.strip()) else ""
        raise BadArgument(f"DESTINATION must be {FORMS}, got {text!a}{like}")
    if revision is not None and scheme != "hf":
        raise BadArgument(f"--revision is of hf:// alone; {scheme}:// has none")
    match scheme:
        case "hf":
            return _hub(rest, revision)
        case "s3":
            return _bucket(rest)
        case "oci":
            return _oci(rest)
        case "http" | "https":
            return _service(text)
        case _:
            raise BadArgument(f"nothing is pushed to {scheme!a}://; DESTINATION must be {FORMS}")


def _hub(rest: str, revision: str | None) -> HubRepository:
    read = _HUB.fullmatch(rest)
    if read is None:
        raise BadArgument(f"hf:// is followed by ORG/NAME or ORG/NAME@REVISION, such as hf://me/smaller-bert, got {rest!a}")
    name, given = read.groups()
    if given is not None and revision is not None and given != revision:
        raise BadArgument(f"the revision is given twice: {given} in the destination, and --revision {revision}")
    return HubRepository(name, given or revision)


def _service(text: str) -> AnotherService:
    """Read the address of a service. The Hub's pages are none, and no service's key is to be sent there."""
    address = address_of(text)
    own, hub = urlsplit(address), urlsplit(os.environ.get("HF_ENDPOINT", ""))
    if own.hostname not in _HUB_HOSTS and (not hub.netloc or own.netloc.lower() != hub.netloc.lower()):
        return AnotherService(address)
    page = _HUB_PAGE.fullmatch(own.path)
    name, revision = ("ORG/NAME", None) if page is None else page.groups()
    raise BadArgument(
        f"{address} is a page of the Hub, and http(s):// is for Coppice services; "
        f"did you mean hf://{name}{'' if revision is None else f'@{revision}'}?"
    )


def _bucket(rest: str) -> Bucket:
    name, _slash, prefix = rest.partition("/")
    if _BUCKET.fullmatch(name) is None:
        raise BadArgument(
            f"s3:// is followed by the name of a bucket and a prefix, such as s3://models/smaller-bert, got {rest!a}"
        )
    if not prefix.strip("/"):
        raise BadArgument(f"give a prefix, too, such as s3://{name}/smaller-bert: a bundle's files would lie among all others")
    parts = prefix.strip("/").split("/")
    if not prefix.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise BadArgument(f"the prefix must be of names with / between them, got {prefix!a}")
    return Bucket(name, "/".join(parts))


def _oci(rest: str) -> OciArtifact:
    read = _OCI.fullmatch(rest)
    if read is None:
        raise BadArgument(
            f"oci:// is followed by REGISTRY/NAME:TAG, names in small letters, such as oci://ghcr.io/me/bert:0.5, got {rest!a}"
        )
    return OciArtifact(*read.groups())
