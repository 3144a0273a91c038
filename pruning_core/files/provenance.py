"""``provenance.json``: where a bundle comes from, as an in-toto statement of SLSA provenance. Torch-free.

The statement is of https://in-toto.io/Statement/v1, its predicate of https://slsa.dev/provenance/v1. What we put into the
fields that these leave open is told in docs/guides/origin.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints
from pydantic.alias_generators import to_camel

from pruning_core.files.paths import is_local
from pruning_core.spec.prune import PruneSpec

# The names of the two files in a bundle. The signature's is the one of the stock tool, too.
PROVENANCE_FILE = "provenance.json"
SIGNATURE_FILE = "model.sig"

BUILD_TYPE = "urn:coppice:build:prune:1"
BUILDER = "urn:coppice:worker"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# SLSA asks for RFC 3339 in UTC.
Moment = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str)]


class _Part(BaseModel):
    """Part of a statement. Unknown fields are ignored, as in-toto asks of those who read."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Resource(_Part):
    """A file, or a whole of files: its name, its address, its digests by algorithm, and what else is known of it."""

    name: str | None = None
    uri: str | None = None
    digest: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Subject(_Part):
    """A file of the bundle."""

    name: str
    digest: dict[str, str]


class ExternalParameters(_Part):
    """What the user asked for."""

    spec: dict[str, Any]


class BuildDefinition(_Part):
    """What went in."""

    build_type: str
    external_parameters: ExternalParameters
    internal_parameters: dict[str, str | int] = {}
    resolved_dependencies: tuple[Resource, ...] = ()


class Builder(_Part):
    """Who did it, with which versions."""

    id: str
    version: dict[str, str] = {}


class RunMetadata(_Part):
    """Which job it was, and when it ran."""

    invocation_id: str
    started_on: Moment
    finished_on: Moment


class RunDetails(_Part):
    """How it was done."""

    builder: Builder
    metadata: RunMetadata


class Provenance(_Part):
    """The predicate."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(_Part):
    """The statement."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(default="https://in-toto.io/Statement/v1", alias="_type")
    subject: tuple[Subject, ...]
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = "https://slsa.dev/provenance/v1"
    predicate: Provenance

    def to_json(self) -> str:
        """Return the document."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 of every file that the statement is about."""
        return {subject.name: subject.digest.get("sha256", "") for subject in self.subject}


def shown_spec(spec: PruneSpec) -> dict[str, Any]:
    """Return a spec without the places of the server's folders: of a path, the last name stays."""
    task = spec.task.but(dataset=shown_name(spec.task.dataset))
    shown = spec.but(model=shown_name(spec.model), task=task)
    places = {field: shown_name(place) for field, place in spec.ledger_places.items()}
    return shown.with_ledger_at(places).model_dump(mode="json")


def shown_name(reference: str) -> str:
    """Return a Hub id as it is, and the last name of a path."""
    return PurePath(reference).name or "/" if is_local(reference) else reference
