"""What a job needs of a worker, and what a worker serves.

Jobs of the same needs wait in one queue, named by them: ``any``, ``cpu``, ``cuda``, ``cuda+a100``. GPU memory stands beside it:
it is predicted to the byte, and would make a queue of every job. Workers that serve the same are one pool.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.settings import TAG

ANY, CUDA = "any", "cuda"
MOST_TAGS_OF_A_JOB = 4
MOST_QUEUES = 32  # in which the jobs of one tenant may wait at once: a claim looks at each

_GIB = 2**30
_JOINT = "+"

Tag = Annotated[str, StringConstraints(min_length=1, max_length=24, pattern=TAG)]


def _sorted_once(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(tags)))


class Needs(BaseModel):
    """What a job's worker must have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["any", "cpu", "cuda"] = Field(default=ANY, description="Class of the worker's device.")
    gpu_memory_bytes: int | None = Field(
        default=None,
        ge=1,
        le=2**50,
        description="Memory that the GPU must have. Null with `cuda`: as predicted, where the model's files are here.",
    )
    tags: Annotated[tuple[Tag, ...], AfterValidator(_sorted_once)] = Field(
        default=(), max_length=MOST_TAGS_OF_A_JOB, description="Tags that the worker must have, all of them."
    )

    @model_validator(mode="after")
    def _memory_of_a_gpu(self) -> Needs:
        if self.gpu_memory_bytes is not None and self.device != CUDA:
            raise ValueError('gpu_memory_bytes is for jobs that need a GPU; set device to "cuda", or leave it out')
        return self

    @property
    def is_to_be_predicted(self) -> bool:
        """Whether the memory is to be predicted."""
        return self.device == CUDA and self.gpu_memory_bytes is None

    def with_memory(self, predicted: int | None) -> Needs:
        """Return the needs with the memory that was predicted, where none was asked for."""
        return self.model_copy(update={"gpu_memory_bytes": predicted}) if self.is_to_be_predicted else self

    @property
    def queue(self) -> str:
        """The name of the queue."""
        return _JOINT.join((self.device, *self.tags))

    @classmethod
    def of(cls, queue: str, gpu_bytes: int | None) -> Needs:
        """Read what a job needs from its row."""
        device, *tags = queue.split(_JOINT)
        return cls.model_validate({"device": device, "tags": tuple(tags), "gpu_memory_bytes": gpu_bytes})

    def described(self) -> str:
        """Say it in words."""
        device = {"any": "a worker", "cpu": "a worker without a GPU", "cuda": "a worker with a GPU"}[self.device]
        memory = "" if self.gpu_memory_bytes is None else f" of {self.gpu_memory_bytes / _GIB:.1f} GiB"
        tags = f" tagged {' and '.join(self.tags)}" if self.tags else ""
        return f"{device}{memory}{tags}"


NO_NEEDS = Needs()


class Abilities(BaseModel):
    """What a worker has for jobs."""

    model_config = ConfigDict(frozen=True)

    device: str = "cpu"  # the type of its torch device
    gpu_bytes: int | None = None  # memory of its smallest GPU; null: not known, and then taken to be enough
    tags: tuple[str, ...] = ()

    @property
    def pool(self) -> str:
        """The name of the pool of workers that serve the same."""
        memory = "" if self.gpu_bytes is None else f"-{round(self.gpu_bytes / _GIB)}"
        return _JOINT.join((f"{self.device}{memory}", *self.tags))

    def serves_queue(self, queue: str) -> bool:
        """Return whether the worker serves a queue, but for the memory that some of its jobs need."""
        device, *tags = queue.split(_JOINT)
        return device in (ANY, self.device) and set(tags) <= set(self.tags)

    def serves(self, needs: Needs) -> bool:
        """Return whether the worker serves a job."""
        enough = needs.gpu_memory_bytes is None or self.gpu_bytes is None or needs.gpu_memory_bytes <= self.gpu_bytes
        return self.serves_queue(needs.queue) and enough


def why_nobody(needs: Needs, workers: Collection[Abilities]) -> str:
    """Say why none of some workers serves a job: what it needs, and what comes nearest."""
    wanted = f"the job needs {needs.described()}"
    if not workers:
        return "no worker is signed in" if needs == NO_NEEDS else f"no worker is signed in; {wanted}"
    devices = [own for own in workers if needs.device in (ANY, own.device)]
    if not devices:
        return (
            f"{wanted}, and the workers that are signed in have {' and '.join(sorted({own.device for own in workers}))} alone"
        )
    tagged = [own for own in devices if set(needs.tags) <= set(own.tags)]
    if not tagged:
        known = sorted({tag for own in devices for tag in own.tags})
        have = f"have the tags {', '.join(known)}" if known else "have no tags"
        return f"{wanted}, and the workers that are signed in {have}"
    largest = max(own.gpu_bytes or 0 for own in tagged)
    return f"{wanted}, and the largest GPU of a worker has {largest / _GIB:.1f} GiB"
