"""What the API asks an inspecting process, and what it answers: versionless, as both sides are of one installation.

Answers come from a process that has read hostile bytes. They are validated like any input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.inspection.records import UploadedFile, UploadKind
from pruning_core.checks.findings import Findings
from pruning_core.checks.prediction import Prediction
from pruning_core.spec.evaluation import MOST_SETS
from pruning_core.spec.ledger import MOST_TEXTS
from pruning_core.spec.prune import Columns, PruneSpec

MOST_ANSWER_BYTES = 4 * 2**20
_LONGEST_MESSAGE = 4096
_MOST_FAULTS = 32


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Unpack(_Value):
    """Unpack an archive into an empty folder, and check names, kinds and sizes of what is in it.

    Attributes:
        archive: A tar file, plain or compressed by gzip.
        kind: What it should hold.
        folder: Where its files go.
        max_bytes: Largest size of the files together.
        min_free_bytes: Room that must stay on the disk.
    """

    ask: Literal["unpack"] = "unpack"
    archive: Path
    kind: UploadKind
    folder: Path
    max_bytes: int
    min_free_bytes: int


class Seal(_Value):
    """Insist that a folder holds the files that an unpacking process says it does, and nothing else.

    Attributes:
        kind: What they should be.
        folder: Where they are.
        files: What was said.
    """

    ask: Literal["seal"] = "seal"
    kind: UploadKind
    folder: Path
    files: tuple[UploadedFile, ...]


class CheckModel(_Value):
    """Check an unpacked model, whatever will be asked of it."""

    ask: Literal["check_model"] = "check_model"
    folder: Path


class CheckSpec(_Value):
    """Check the files that a spec names.

    Attributes:
        spec: The spec; references to uploads are replaced by their folders.
        roots: Folders that paths of the client's own may lead to.
        closed: Folders that they may not lead to, although they may lie under those.
        uploaded: Which of ``model`` and the fields of data are folders of uploads, and so no paths of the client's.
        predicts: Whether the job is predicted.
    """

    ask: Literal["check_spec"] = "check_spec"
    spec: PruneSpec
    roots: tuple[Path, ...]
    closed: tuple[Path, ...]
    uploaded: frozenset[str]
    predicts: bool


Question = Annotated[Unpack | Seal | CheckModel | CheckSpec, Field(discriminator="ask")]


class Unpacked(_Value):
    """The files of an archive."""

    answer: Literal["unpacked"] = "unpacked"
    files: tuple[UploadedFile, ...] = Field(max_length=100_000)


class Sound(_Value):
    """The model can be read, and has a known structure; or the files are those that were said."""

    answer: Literal["sound"] = "sound"


class Resolved(_Value):
    """The spec's references, with links resolved, and its columns, guessed ones too: the worker opens what was checked.

    Attributes:
        model: The model.
        data: The data sets, by the fields of `pruning_core.spec.data_places`.
        columns: Columns of the task.
        also_columns: Columns of each further evaluation set; None where nothing was looked at.
        findings: What was found in the data.
        prediction: What is predicted of the job; None where that was not asked.
    """

    answer: Literal["resolved"] = "resolved"
    model: str
    data: dict[str, str] = Field(max_length=2 + MOST_SETS + MOST_TEXTS)
    columns: Columns
    also_columns: tuple[Columns | None, ...] = Field(max_length=MOST_SETS)
    findings: Findings
    prediction: Prediction | None


class Fault(_Value):
    """One thing that is wrong with the files."""

    code: str = Field(max_length=64)
    message: str = Field(max_length=_LONGEST_MESSAGE)
    pointer: str | None = Field(default=None, max_length=_LONGEST_MESSAGE)

    @classmethod
    def of(cls, code: str, message: str, pointer: str | None) -> Fault:
        """Make one whose message is no longer than what is taken."""
        return cls(code=code, message=message[:_LONGEST_MESSAGE], pointer=pointer)


class Refusal(_Value):
    """The files are refused, for one reason or for several that do not depend on each other."""

    answer: Literal["refusal"] = "refusal"
    faults: tuple[Fault, ...] = Field(min_length=1, max_length=_MOST_FAULTS)

    @classmethod
    def of(cls, *faults: Fault) -> Refusal:
        """Make a refusal with no more faults than are taken."""
        return cls(faults=faults[:_MOST_FAULTS])


class Failure(_Value):
    """The inspection could not be finished.

    Attributes:
        why: ``exhausted``: the files need more than the limits; ``disk``: the server's disk is full; ``unexpected``: an error
            that no check foresaw.
        details: For the log.
    """

    answer: Literal["failure"] = "failure"
    why: Literal["exhausted", "disk", "unexpected"]
    details: str = Field(default="", max_length=_LONGEST_MESSAGE)

    @classmethod
    def of(cls, why: Literal["exhausted", "disk", "unexpected"], details: str = "") -> Failure:
        """Make a failure whose details are no longer than what is taken."""
        return cls(why=why, details=details[-_LONGEST_MESSAGE:])


Answer = Annotated[Unpacked | Sound | Resolved | Refusal | Failure, Field(discriminator="answer")]

QUESTIONS: TypeAdapter[Unpack | Seal | CheckModel | CheckSpec] = TypeAdapter(Question)
ANSWERS: TypeAdapter[Unpacked | Sound | Resolved | Refusal | Failure] = TypeAdapter(Answer)
