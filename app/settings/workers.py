"""What a worker is: devices, tags, threads; and how all processes log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from app.settings.parts import split_list

TAG = r"^[a-z0-9][a-z0-9_.\-]{0,23}$"  # of a worker


class Workers(BaseSettings):
    """The worker's machine."""

    device: str = Field(default="", description="Torch device of the worker, e.g. cpu or cuda:0; empty: a GPU if there is one.")
    devices: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Torch devices of the worker, separated by commas, each of which runs a job at the same time: "
        "cuda:0,cuda:1. All are of one class. Empty: the one of COPPICE_DEVICE.",
    )
    worker_tags: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        max_length=6,
        description="Tags of the worker, separated by commas, e.g. a100,nvlink: jobs may ask for a worker that has them.",
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads of a job; empty: torch's own default.")
    engines_dir: Path | None = Field(
        default=None,
        description="Folder of the environments of engines (vllm, llama-cpp, mlx, openvino) that bundles are run in, where a "
        "job asks for them; see coppice engines. Empty: the folder engines in the worker's own Python environment, where make "
        "engines makes them.",
    )
    log_json: bool = Field(default=True, description="Logs as JSON lines; false: for people.")

    _split_devices_and_tags = field_validator("devices", "worker_tags", mode="before")(split_list)

    @field_validator("worker_tags")
    @classmethod
    def _known_form(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(re.fullmatch(TAG, tag) is None for tag in value):
            raise ValueError("a tag has 1 to 24 small letters, digits, ., _ and -, and begins with a letter or a digit")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _devices_of_one_class(self) -> Workers:
        if self.devices and self.device:
            raise ValueError("COPPICE_DEVICES takes the place of COPPICE_DEVICE; set one of them")
        if len({name.partition(":")[0] for name in self.devices}) > 1:
            raise ValueError("COPPICE_DEVICES must be of one class; start a worker for the GPUs and one for the CPU")
        if len(set(self.devices)) < len(self.devices) and any(name != "cpu" for name in self.devices):
            raise ValueError("COPPICE_DEVICES must name each GPU once: two jobs on one would run out of its memory")
        return self

    @property
    def resolved_devices(self) -> tuple[str, ...]:
        """The devices of the worker, at least one; "" is the one that torch chooses."""
        return self.devices or (self.device,)
