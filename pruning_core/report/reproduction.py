"""What it takes to make a bundle again: the spec, the digests of what was read, the machine, and one command. Torch-free."""

from __future__ import annotations

import re
import shlex
from typing import Any, Literal

from pydantic import Field

from pruning_core.spec.frozen import Frozen

COMMAND = "coppice reproduce"
_LONGEST_SHOWN = 12
_OPTIONS = {"model": "--model", "data": "--data"}
_PLAIN = re.compile(r"[\w.@+\-/ ]+")  # others could end the block of code that the card has the command in


class SourceReport(Frozen):
    """A model or a data set that was read, by its content."""

    kind: Literal["folder", "hub"]
    name: str = Field(description="The Hub id, or the last name of the path.")
    commit: str | None = Field(default=None, description="Commit of the Hub's repository, where its cache names it.")
    sha256: dict[str, str] = Field(
        description="Of a model: of each of its files that a run reads, by path. Of data: of the rows of train and validation, "
        "as they were read (texts, labels and names of classes), so that another file format has the same.",
    )


class MachineReport(Frozen):
    """What of a machine decides about the last bits of a result."""

    system: str = Field(description="Operating system and architecture.")
    processor: str
    instructions: str = Field(description="The vector instructions that torch's own kernels use.")
    cores: int
    accelerator: str | None = Field(default=None, description="Name of the GPU that computed.")
    threads: int = Field(description="CPU threads of the run.")


class ReproductionReport(Frozen):
    """What it takes to make the bundle again. Null in reports of earlier versions."""

    command: str = Field(description="Makes the bundle again and compares, in the folder of this report.")
    spec: dict[str, Any] = Field(
        description="The whole request, guessed columns included. The service names its own folders by their last name."
    )
    model: SourceReport
    data: SourceReport
    machine: MachineReport

    @property
    def words(self) -> str:
        """What the command does, and what its options name."""
        folders = [what for what, source in (("model", self.model), ("data", self.data)) if source.kind == "folder"]
        named = f" Its options name your copies of the {' and the '.join(folders)}." if folders else ""
        return (
            "In this folder. It checks the sha256 of model and data, runs the same request, and says whether the weights are "
            f"the same to the last bit.{named}"
        )

    def from_below(self) -> ReproductionReport:
        """Return the same for the report of a checkpoint that lies in a folder of the bundle: the bundle is one up."""
        return self.but(command=self.command.replace(f"{COMMAND} .", f"{COMMAND} ..", 1))


def command_for(model: SourceReport, data: SourceReport) -> str:
    """Return the command that makes a bundle again, in its folder. What is no Hub id must be named by whoever has a copy."""
    named = {"model": model, "data": data}
    places = [
        f"{_OPTIONS[role]} {shlex.quote(f'/path/to/{source.name}') if _PLAIN.fullmatch(source.name) else role.upper()}"
        for role, source in named.items()
        if source.kind == "folder"
    ]
    return " ".join([f"{COMMAND} .", *places])


def unlike(said: SourceReport, found: dict[str, str]) -> tuple[str, ...]:
    """Say which parts of a source are not those of a report, each with what was found and what was said.

    Args:
        said: The source in the report.
        found: The sha256 of each part that is there now.
    """
    sentences: list[str] = []
    for name in sorted(said.sha256.keys() | found.keys()):
        then, now = said.sha256.get(name), found.get(name)
        if then == now:
            continue
        if now is None:
            sentences.append(f"{name} is missing")
        elif then is None:
            sentences.append(f"{name} was not there")
        else:
            sentences.append(f"{name} has the sha256 {now[:_LONGEST_SHOWN]}…, and the report says {then[:_LONGEST_SHOWN]}…")
    return tuple(sentences)
