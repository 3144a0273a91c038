"""Reasons why a bundle does not run in an engine, as sentences for its row."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence

from pruning_core.artifacts.engines.messages import EngineFound
from pruning_core.errors import OutOfMemory
from pruning_core.machine.resources import told_of

_DOING = {
    "import": "was being imported",
    "load": "loaded the checkpoint",
    "run": "ran the checkpoint",
    "dense": "loaded the dense model",
    "time": "was timed",
}
# What engines say of architectures that they do not have.
_UNKNOWN = re.compile(
    r"does not recognize this architecture|[Uu]nknown model architecture|architectures? .{0,200}(not|un)supported"
    r"|are not supported for now|Model type \S+ not supported|has no vLLM implementation"
    r"|should have a `model_type` key|[Uu]nrecognized (model|configuration class)|trust_remote_code",
    re.DOTALL,
)
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


def of_error(title: str, found: EngineFound) -> str:
    """Say why an engine can't load or run the checkpoint."""
    version = f"{title} {found.version}" if found.version else title
    said = [found.error or "", *found.causes]
    lacking = told_of(said)
    if lacking is not None:
        return f"{version} ran out of {'memory' if lacking is OutOfMemory else 'disk space'} while it {_DOING['load']}"
    if any(_UNKNOWN.search(own) for own in said):
        return f"{version} does not know the architecture ({found.error})"
    verb = "load" if found.stage == "load" else "run"
    return f"{version} cannot {verb} it ({found.error})"


def of_timing(found: EngineFound) -> str:
    """Say why there are no figures of speed, or few."""
    lacking = told_of([found.error or "", *found.causes])
    why = "it ran out of memory" if lacking is OutOfMemory else found.error
    return f"its speed was not measured to the end: {why} while it {_DOING.get(found.stage or '', 'was timed')}"


def of_end(code: int | None, limit_s: float) -> str:
    """Say how a process ended that answered first."""
    if code is None:
        return f"it was stopped after {limit_s:.0f} s"
    return "it was killed, most likely for its memory," if code in _KILLED else f"it ended with exit code {code}"


def of_silence(title: str, code: int | None, limit_s: float, stage: str, log: Sequence[str]) -> str:
    """Say how a process ended that gave no answer."""
    doing = _DOING.get(stage, "was being started")
    if code is None:
        return f"{title} did not end in time: it was stopped after {limit_s:.0f} s, while it {doing}"
    if code in _KILLED:
        return f"{title} was killed while it {doing}, most likely for its memory"
    if told_of(log[-30:]) is OutOfMemory:
        return f"{title} ran out of memory while it {doing}"
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{title} crashed while it {doing}: its process {how}"


def without(found: EngineFound, hidden: Mapping[str, str]) -> EngineFound:
    """Leave folders of this machine out of what an engine said."""

    def shown(text: str) -> str:
        for place, name in hidden.items():
            text = text.replace(place, name)
        return re.sub(r"(?<![\w.])(/[\w.@+-]+){2,}/?", "…", text)

    if found.error is None:
        return found
    return found.model_copy(update={"error": shown(found.error), "causes": [shown(own) for own in found.causes]})
