"""Trying a spoilt request: the checks of a submit, then the job, in a process of its own that may not take the tests along."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coppice.commands.here import quiet_libraries
from tests.mutations.bases import WARM, Place, copy_of
from tests.mutations.strategies import Example
from tests.prover import Prover

ROOT = Path(__file__).resolve().parents[2]
CHECK_S = 2.0  # what `check` promises
JOB_S = 90.0
_MEMORY = 6 * 2**30
# A job that a service would let run for minutes is not run here.
_LONGEST_S = 40.0

# Good requests whose jobs are done in the tests' own process: what is forked afterwards has their imports.
_FIRST = ("bert-classes", "t5", "vit")

# How a job may end that `check` let in: what no look at files can tell before the work. Everything else `check` must say.
HONEST = frozenset(
    {
        "target_missed",  # the mask was found, and rounding or a measured latency missed the tolerance
        "quality_floor",  # quality is known when it is measured
        "metric_undefined",  # and then a share of it is none, if the dense model's is 0
        "diverged",  # so is training
        "not_finite",  # no weight is read before the job
        "oom",  # depends on the machine
        "engine_unusable",  # as well
    }
)
GOOD = ("refused", "done", "not run")


@dataclass(frozen=True)
class Outcome:
    """How an example ended.

    Attributes:
        word: ``refused`` by the checks, ``done``, ``not run`` (accepted, but of the Hub or too long), or a kind of failure.
        code: Of the error, or the name of its class.
        place: The innermost place of ours that it came from.
        message: Of the error; with the traceback, where it is none of ours.
        param: The field that the error names.
        check_s: Seconds that the checks took.
    """

    word: str
    code: str = ""
    place: str = ""
    message: str = ""
    param: str | None = None
    check_s: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the product did not keep its word."""
        return self.word not in GOOD

    @property
    def key(self) -> tuple[str, str, str]:
        """By which alike failures are one."""
        return self.word, self.code, self.place


class Trier:
    """Tries examples: good requests lie in a scratch folder, and one process proves the bundles."""

    def __init__(self, scratch: Path) -> None:
        """Write the good requests, and import what every job needs before processes are forked."""
        from tests.mutations.bases import write_bases

        # What is set for the whole process is put back in the end: other tests run in it, some of which read the log.
        self._before = ExitStack()
        for name, value in (("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false")):
            self._before.callback(_put_back, name, os.environ.get(name))
            os.environ[name] = value
        self.scratch = scratch
        self.bases = scratch / "bases"
        self._before.enter_context(_prepared())
        write_bases(self.bases)
        self._prover = Prover(*WARM)
        with quiet_libraries():
            for name in _FIRST:
                place = copy_of(self.bases / name, scratch / f"first-{name}")
                outcome = try_request(place, self._prover)
                assert outcome.word == "done", outcome

    def close(self) -> None:
        """End the process that proves."""
        self._prover.close()
        self._before.close()

    def make(self, example: Example, folder: Path) -> Place:
        """Write an example's files."""
        place = copy_of(self.bases / example.base, folder)
        example.make(place)
        return place

    def attempt(self, example: Example) -> Outcome:
        """Make an example and try it."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            try:
                place = self.make(example, Path(folder) / "request")
            except Exception as error:  # a mutation that fails on what another one left is mended; the others are tried
                return _crashed("not made", error)
            return self._forked(lambda: try_request(place, self._prover))

    def _forked(self, work: Callable[[], Outcome]) -> Outcome:
        """Do work in a fork with a limit of time and memory."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _do(work, writer)
        os.close(writer)
        try:
            text = _read_all(reader, JOB_S)
        finally:
            os.close(reader)
        if text is None:
            os.kill(child, signal.SIGKILL)
        _pid, status = os.waitpid(child, 0)
        if text:
            return Outcome(**json.loads(text))
        self._renew()  # it may have died in the middle of a proof
        if text is None:
            return Outcome("hung", place="", message=f"no answer after {JOB_S:.0f} s")
        return Outcome("died", code=str(os.waitstatus_to_exitcode(status)), message="the process ended without an answer")

    def _renew(self) -> None:
        with suppress(OSError, ValueError):
            self._prover.end()
        self._prover = Prover(*WARM)


def _do(work: Callable[[], Outcome], writer: int) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        with quiet_libraries():
            outcome = work()
        with os.fdopen(writer, "w") as out:
            out.write(json.dumps(asdict(outcome)))
    finally:
        os._exit(0)


def _read_all(reader: int, limit_s: float) -> str | None:
    """Read to the end; None where it does not come in time."""
    read, end = b"", time.monotonic() + limit_s
    while (left := end - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            chunk = os.read(reader, 1 << 16)
            if not chunk:
                return read.decode()
            read += chunk
    return None


@contextmanager
def _prepared() -> Generator[None]:
    """Import what jobs use, and let it use one core."""
    import torch
    import transformers

    import pruning_core.run.pipeline  # noqa: F401
    from pruning_core.machine.threads import keep_few_kernels

    transformers.logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_few_kernels()
    yield
    torch.set_num_threads(threads)


def _put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def try_request(place: Place, prover: Prover) -> Outcome:
    """Check a request as a submit does, and do the job if it is accepted."""
    from pydantic import ValidationError

    from pruning_core.checks.prediction import predict
    from pruning_core.checks.request import check_local_inputs
    from pruning_core.errors import PruningError
    from pruning_core.files.paths import is_local
    from pruning_core.spec.prune import PruneSpec

    begun = time.monotonic()
    try:
        spec = PruneSpec.model_validate(place.request())
    except ValidationError as error:
        return _refused_spec(error, place)
    except Exception as error:
        return _crashed("check crashed", error)
    try:
        check_local_inputs(spec)
        predicted = predict(spec)
    except PruningError as error:
        spent = time.monotonic() - begun
        problem = unsaid(error.message, error.param, place.folder)
        word = "refused" if problem is None else f"check says {problem}"
        return Outcome(word, error.code, "" if problem is None else place_of(error), error.message, error.param, spent)
    except Exception as error:
        return _crashed("check crashed", error)
    spent = time.monotonic() - begun
    if spent > 5 * CHECK_S:  # a loaded machine is slow, but not five times
        return Outcome("check slow", message=f"{spent:.1f} s", check_s=spent)
    if not is_local(spec.model) or not is_local(spec.task.dataset):
        return Outcome("not run", "hub", check_s=spent)
    if predicted is not None and predicted.seconds > _LONGEST_S:
        return Outcome("not run", "long", check_s=spent)
    return _job(spec, place, prover, spent)


def _job(spec: Any, place: Place, prover: Prover, spent: float) -> Outcome:
    from pruning_core.errors import PruningError
    from pruning_core.run.pipeline import run

    try:
        with prover.proving():
            run(spec, place.folder / "out", device="cpu", threads=1)
    except PruningError as error:
        word = "done" if error.code in HONEST else "job refused"
        where = "" if error.code in HONEST else place_of(error)
        return Outcome(word, error.code, where, error.message, error.param, spent)
    except Exception as error:
        return _crashed("job crashed", error)
    finally:
        shutil.rmtree(place.folder / "out", ignore_errors=True)
    return Outcome("done", "succeeded", check_s=spent)


def _refused_spec(error: Any, place: Place) -> Outcome:
    """Judge the words of a spec's own refusals, as the edges say them: after the name of a field."""
    from pruning_core.spec.messages import message_of

    for one in error.errors(include_url=False):
        message, field = message_of(one), ".".join(map(str, one["loc"]))
        problem = unsaid(f"{field} {message}", field or "spec", place.folder)
        if problem is not None:
            return Outcome(f"spec says {problem}", one["type"], field, message, field)
    return Outcome("refused", "spec", message=message_of(error.errors(include_url=False)[0]))


def _crashed(word: str, error: Exception) -> Outcome:
    trace = "".join(traceback.format_exception(error))
    return Outcome(word, type(error).__name__, place_of(error), f"{error}"[:300] + "\n" + trace[-3000:])


def place_of(error: BaseException) -> str:
    """Name the innermost function of ours that an error passed through."""
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT / "pruning_core"):
            found = f"{path.relative_to(ROOT)}:{frame.name}"
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found if cause is None else f"{found} < {type(cause).__name__} {_innermost(cause)}"


def _innermost(error: BaseException) -> str:
    """Name the function that raised an error, of whatever library: one refusal of ours may be of several causes."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""


_CLASSES = re.compile(r"\b[A-Za-z]+(Error|Exception)\b")


def unsaid(message: str, param: str | None, folder: Path) -> str | None:
    """Say why a message is none that a user can act on; None where it is one."""
    if len(message.split()) < 3:
        return "no sentence"
    if len(message) > 2000 or "\n" in message.strip():
        return "more than a sentence"
    if "Traceback" in message or _CLASSES.search(message):
        return "a class of an error"
    if str(folder) in message or str(folder.parent) in message:
        return "a path of the server"
    if param is None:
        return "no field"
    return None
