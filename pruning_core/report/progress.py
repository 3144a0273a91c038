"""Stages and progress of a job. Torch-free."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from pruning_core.spec.frozen import Frozen

Stage = Literal[
    "load",
    "calibrate",
    "score",
    "profile",
    "search",
    "rearrange",
    "recover",
    "train",
    "materialise",
    "evaluate",
    "latency",
    "accept",
    "engines",
    "bundle",
]


STAGES: tuple[Stage, ...] = get_args(Stage)


# Each stage's share of a typical job's time; only the progress bar depends on it. Training and engines have
# shares of their own, below.
_STAGE_WEIGHT: dict[Stage, float] = {
    "load": 0.05,
    "calibrate": 0.03,
    "score": 0.12,
    "profile": 0.02,
    "search": 0.01,
    "rearrange": 0.02,
    "recover": 0.13,
    "materialise": 0.03,
    "evaluate": 0.22,
    "latency": 0.25,
    "accept": 0.1,
    "engines": 0.0,
    "bundle": 0.02,
    "train": 0.0,
}


_TRAINING = 0.75  # share of the time of a job that trains
_ENGINES = 0.3  # share of the time, of all but training, of a job whose bundle is run in engines


# The stages from the first to the last of these run once for each target of a job; all others run once.
_FIRST_OF_A_PART, _LAST_OF_A_PART = STAGES.index("search"), STAGES.index("latency")


_MOST = 2**53  # what fits a fraction


class Progress(Frozen):
    """Position of a running job: ``step`` of ``total`` in a stage, for target ``part`` of ``parts``."""

    stage: Stage
    step: int = Field(ge=0, le=_MOST)
    total: int = Field(ge=1, le=_MOST)
    part: int = Field(default=0, ge=0, le=_MOST)
    parts: int = Field(default=1, ge=1, le=_MOST)
    trains: bool = Field(default=False, description="Whether the job trains, which takes most of its time.")
    engines: bool = Field(default=False, description="Whether its bundle is run in engines.")

    @property
    def fraction(self) -> float:
        """Estimated share of the whole job that is done, in [0, 1]. It never decreases."""
        position = STAGES.index(self.stage)
        within = self._share(self.stage) * min(self.step, self.total) / self.total
        if not _FIRST_OF_A_PART <= position <= _LAST_OF_A_PART:
            return min(1.0, self._between(0, position) + within)
        before = self._between(0, _FIRST_OF_A_PART)
        one_part = self._between(_FIRST_OF_A_PART, _LAST_OF_A_PART + 1)
        done = self.part * one_part + self._between(_FIRST_OF_A_PART, position) + within
        return min(1.0, before + done / self.parts)

    def _between(self, start: int, stop: int) -> float:
        return sum(self._share(stage) for stage in STAGES[start:stop])

    def _share(self, stage: Stage) -> float:
        if stage == "train":
            return _TRAINING if self.trains else 0.0
        rest = 1 - _TRAINING if self.trains else 1.0
        if stage == "engines":
            return rest * _ENGINES if self.engines else 0.0
        return rest * (1 - _ENGINES if self.engines else 1.0) * _STAGE_WEIGHT[stage]
