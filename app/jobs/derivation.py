"""Jobs that are derived from others: the same model, data, method and calibration, asked for something else."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.naming import Tags
from app.jobs.needs import Needs
from app.jobs.records import Job, is_calibration
from app.jobs.schemas import MetadataKey, MetadataValue, shown
from app.refusals import Refused
from pruning_core.spec.artifacts import Floor
from pruning_core.spec.naming import RunName
from pruning_core.spec.targets import Target

# Under which a derived job names the one that it comes from; it can be searched for as any metadata.
DERIVED_FROM = "derived_from"

_ASKED = ("target", "targets", "sparsity", "quality_floor")
_OF_THE_JOB = ("name", "tags", "metadata", "priority", "needs", "max_attempts", "timeout_s", "validate_only", "calibration_id")


class JobDerive(BaseModel):
    """What a derived job has other than the one that it comes from. All else stays, and with it what was found out before."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    target: Target | None = Field(
        default=None, description="Any of target, targets, sparsity and quality_floor takes the place of all of them."
    )
    targets: tuple[Target, ...] | None = Field(default=None, max_length=16)
    sparsity: float | None = Field(default=None, gt=0, lt=1, description="Shorthand, as in a job.")
    quality_floor: Floor | None = None
    artifacts: dict[str, Any] | None = Field(
        default=None,
        description="Fields of `artifacts` that change, such as layout, formats and engines. The others stay.",
    )
    name: RunName | None = Field(default=None, description="Of the new job; that of the other one stays its own.")
    tags: Tags | None = Field(default=None, description="Of the new job.")
    metadata: dict[MetadataKey, MetadataValue] | None = Field(
        default=None, max_length=15, description=f"Of the new job. `{DERIVED_FROM}` is added."
    )
    priority: int | None = Field(default=None, ge=0, le=9)
    needs: Needs | None = None
    max_attempts: int | None = Field(default=None, ge=1, le=1000)
    calibration_id: str | None = Field(
        default=None, max_length=64, description="As in a job. A job that is derived from a calibration names it by itself."
    )
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    validate_only: bool = Field(default=False, description="Answer with the plan, and submit nothing.")

    def body_for(self, parent: Job, calibration: str | None = None) -> dict[str, Any]:
        """Return the body of the derived job, as a client would have sent it.

        Args:
            parent: The job that it comes from; it may have any status.
            calibration: The calibration that it names, if its pieces are still kept.

        Raises:
            Refused: Nothing of it is different.
        """
        given = self.model_dump(mode="json", exclude_none=True)
        calibrates = is_calibration(parent.id)
        if calibrates and not given.keys() & set(_ASKED):
            raise Refused("invalid_request", "a calibration has no target: name target, targets, sparsity or quality_floor")
        body = shown(parent.spec).model_dump(mode="json")
        if not given.keys() & {*_ASKED, "artifacts"}:
            said = "name what is to be different: target, targets, sparsity, quality_floor or artifacts"
            raise Refused("invalid_request", said)
        if given.keys() & set(_ASKED):
            body = {name: value for name, value in body.items() if name not in _ASKED}
            body |= {name: given[name] for name in _ASKED if name in given}
        body["artifacts"] = {**body["artifacts"], **given.get("artifacts", {})}
        body |= {"priority": parent.priority} | {name: given[name] for name in _OF_THE_JOB if name in given}
        named = parent.id if calibrates else calibration
        if named is not None:
            body = {"calibration_id": named} | body
        body["metadata"] = {**given.get("metadata", {}), DERIVED_FROM: parent.public_id}
        return body
