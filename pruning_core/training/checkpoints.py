"""Checkpoints of a training: one safetensors file, with all but the tensors as JSON in its header, replaced as a whole.

It is one file because two cannot be replaced at once. It holds no random state: data order and dropout follow from seed and
step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.report.training import Ending, PhaseReport, TrainingPoint
from pruning_core.spec.frozen import Frozen

# Writing the state of a large model takes seconds; losing a minute of training is no loss.
EVERY_S = 60.0


class TrainingState(Frozen):
    """State of a training other than its tensors."""

    identity: str
    step: int = 0
    points: tuple[TrainingPoint, ...] = ()
    phases: tuple[PhaseReport, ...] = ()
    recent: tuple[float, ...] = ()
    pending: tuple[float, ...] = ()
    first: float = 0.0
    held_out_start: float = 0.0
    best: float = 0.0
    best_step: int = 0
    best_ready: bool = False
    without_best: int = 0
    ending: Ending | None = None
    reason: str | None = None


@dataclass(slots=True)
class Checkpoints:
    """The checkpoint file of a training.

    Attributes:
        folder: Folder of this training alone.
        identity: Hash of everything that the training depends on; a checkpoint with another identity is ignored.
        every_s: Least number of seconds between two checkpoints; None: `EVERY_S`.
        now: Returns the seconds of a clock.
    """

    folder: Path
    identity: str
    every_s: float | None = None
    now: Callable[[], float] = time.monotonic
    _last: float | None = None

    @property
    def path(self) -> Path:
        """Path of the checkpoint file."""
        return self.folder / "training.safetensors"

    def due(self) -> bool:
        """Return whether another checkpoint is due."""
        if self._last is None:
            self._last = self.now()
        return self.now() - self._last >= (EVERY_S if self.every_s is None else self.every_s)

    def save(self, tensors: Mapping[str, Tensor], state: TrainingState) -> None:
        """Replace the checkpoint.

        Raises:
            StorageFull: There is no room; the checkpoint before is left as it was.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        own = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
        try:
            save_file(own, partial, metadata={"state": state.model_dump_json()})
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise_if_exhausted(error, "a checkpoint of the training was written")
            raise
        partial.replace(self.path)
        self._last = self.now()

    def load(self) -> tuple[dict[str, Tensor], TrainingState] | None:
        """Read the checkpoint; return None if there is none of this training."""
        try:
            with safe_open(self.path, framework="pt") as file:
                state = TrainingState.model_validate_json((file.metadata() or {}).get("state", ""))
                if state.identity != self.identity:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, ValidationError) as error:
            raise_if_exhausted(error, "a checkpoint of the training was read")
            return None
