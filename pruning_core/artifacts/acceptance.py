"""Acceptance: a fresh process with stock libraries, and without Coppice, shows that a bundle's checkpoints hold their promises.

`fresh` is the script of that process. This module makes the request and compares the answers. One process serves all
checkpoints of a bundle. It is told where they lie and which texts to run, loads them as a user would, and writes down outputs,
counts and times.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from pruning_core.artifacts import as_users, fresh
from pruning_core.artifacts.ahead import Ahead, Desk
from pruning_core.artifacts.comparison import compare_facts, compare_outputs, problem_of_counts, problem_of_times
from pruning_core.artifacts.compressed import COMPRESSED_PATH
from pruning_core.artifacts.messages import (
    AskedCheckpoint,
    AskedProbe,
    AskedSentences,
    AskedTiming,
    FailedCompressed,
    FailedOnnx,
    Failure,
    Found,
    FoundCompressed,
    FoundLatency,
    FoundOnnx,
    Request,
    Result,
)
from pruning_core.artifacts.onnx import ONNX_PATH
from pruning_core.artifacts.probes import ProbeInput, texts_of
from pruning_core.artifacts.process import run_limited
from pruning_core.checks.recipe import read_recipe
from pruning_core.errors import OutOfMemory
from pruning_core.machine.resources import raise_if_exhausted, told_of
from pruning_core.measure.latency import latency_report, median_and_iqr
from pruning_core.report.progress import Stage
from pruning_core.report.report import AcceptanceReport, CompressedReport, LatencyReport, OnnxReport, SecondsReport
from pruning_core.spec.prune import AUTO_CLASSES, LatencySpec
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.sequences import start_token

# Largest relative difference of outputs. Weights are the same, but kernels may round differently in another process (threads,
# alignment), and more so on devices other than the CPU.
_TOLERANCE = {"cpu": 1e-4}
_TOLERANCE_ELSEWHERE = 1e-3

# Weights of paged models come and go. Without these settings, glibc's heap would keep as much free memory as the model takes.
_RETURNING_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}

# The time limit of the process: this multiple of what the run took for the same work, and at least as long as a slow machine
# needs to import the libraries and a busy disk to read large files. It is meant to end a process that hangs, not a slow one.
_TIMES = 20
_LEAST_LIMIT_S = 600.0
# Multiply-accumulates a second: a tenth of a slow core. onnxruntime runs on the CPU whatever the worker's device is.
_SLOWEST_MACS_S = 5e8

# Texts of probes whose tokens are compared with those of the source's tokenizer: how many, and characters of each.
_MOST_FACTS = 64
_LONGEST_FACT = 2000

_DOING = {
    "start": "while it imported its libraries",
    "tokenizer": "while it loaded the tokenizer",
    "sentence-transformers": "while sentence-transformers loaded and ran it",
    "transformers": "while stock transformers loaded and ran it",
    "onnx": "while onnxruntime ran its graph",
    "compressed": "while it loaded the compressed form",
    "latency": "while it measured the latency again",
}

# Steps of the proof of one checkpoint, not all of which every checkpoint has.
STEPS = len(_DOING)

_STAGES = {
    "tokenizer": "its tokenizer cannot be loaded",
    "sentence-transformers": "sentence-transformers cannot load or run it",
    "transformers": "stock transformers cannot load or run it",
    "latency": "its latency cannot be measured again",
}


@dataclass(frozen=True, slots=True)
class Expectation:
    """The worker's own findings on a written checkpoint, which the fresh process must reproduce.

    Attributes:
        folder: The checkpoint's folder.
        answers: The worker's outputs, one tensor a probe.
        parameters: Number of stored values.
        bytes: Size of the weight files.
        onnx: Whether there is an ONNX graph to check.
        compressed: Number of matrices in each compressed form; None where there is no compressed checkpoint.
        measure_again: Whether the latency was promised, and so is measured again.
        device_map: For a model larger than memory, the modules that stay on the disk when the checkpoint is loaded; else None.
    """

    folder: Path
    answers: tuple[Tensor, ...]
    parameters: int
    bytes: int
    onnx: bool
    measure_again: bool
    compressed: dict[str, int] | None = None
    device_map: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict on one checkpoint; ``problem`` is a sentence on what does not hold, None where everything does."""

    acceptance: AcceptanceReport | None = None
    onnx: OnnxReport | None = None
    problem: str | None = None
    compressed: CompressedReport | None = None


@dataclass(frozen=True, slots=True)
class Prover:
    """Has the checkpoints of one run proven in a fresh process.

    Attributes:
        dense: The dense model.
        probes: Batches of held-out inputs.
        timing: Shape, threads and repeats of the latency measurement.
        trust_remote_code: Whether the bundle has a loader of its own.
        seed: Seed of the random inputs that latency is measured on.
        limit_s: Seconds that the process may take without ONNX graphs, from `time_limit`.
        ahead: A process that has imported its libraries and waits for the request; None: one is started.
    """

    dense: TaskModel
    probes: tuple[ProbeInput, ...]
    timing: LatencySpec
    trust_remote_code: bool
    seed: int
    limit_s: float = _LEAST_LIMIT_S
    ahead: Ahead | None = None

    def prove(self, expectations: Sequence[Expectation], on_step: Callable[[int], None] = lambda _step: None) -> list[Proof]:
        """Run the fresh process, and judge its answer for each checkpoint.

        Args:
            expectations: What the worker found of each.
            on_step: Called with the number of steps that are done, `STEPS` for each checkpoint.

        Raises:
            OutOfMemory: The process ran out of memory, or was killed for it.
            StorageFull: The process ran out of disk space.
        """
        limit_s = self.limit_s + sum(map(self._onnx_s, expectations))
        found = _run(self._request(expectations), limit_s, self.ahead, on_step)
        if not isinstance(found, str) and len(found) != len(expectations):
            found = f"the fresh process that was to load it answered for {len(found)} of {len(expectations)} checkpoints"
        if isinstance(found, str):
            return [Proof(problem=found) for _ in expectations]
        return [self.judge(expected, answer) for expected, answer in zip(expectations, found, strict=True)]

    def judge(self, expected: Expectation, found: Found | Failure) -> Proof:
        """Compare the fresh process's findings on a checkpoint with the worker's. A value that cannot be compared is a problem.

        Raises:
            OutOfMemory: The fresh process ran out of memory, which says nothing about the checkpoint.
            StorageFull: The fresh process ran out of disk space, which says nothing about it either.
        """
        for failed in (found,) if isinstance(found, Failure) else (found.onnx, found.compressed):
            if isinstance(failed, Failure | FailedOnnx | FailedCompressed):
                _raise_if_exhausted(failed)
        if isinstance(found, Failure):
            return Proof(
                problem=f"{_STAGES[found.stage]} in a fresh process ({found.error.replace(str(expected.folder), '.')})"
            )
        tolerance = _TOLERANCE.get(self.dense.device.type, _TOLERANCE_ELSEWHERE)
        outputs = compare_outputs(expected.answers, found.outputs, tolerance)
        counts = problem_of_counts(
            stored=found.stored,
            size=found.bytes,
            loaded=found.parameters,
            expected=expected.parameters,
            expected_size=expected.bytes,
        )
        timing = self._problem_of_latency(expected, found.latency)
        held, unlike = self._compared(expected, found, tolerance)
        if len(expected.answers) != len(self.probes):
            problem = f"the worker has outputs of {len(expected.answers)} of {len(self.probes)} batches"
        elif outputs.problem is not None:
            problem = f"a fresh process gets {outputs.problem}"
        elif counts is not None:
            problem = f"a fresh process counts {counts}"
        else:
            problem = unlike or timing
        report = None
        if outputs.difference is not None and timing is None:
            report = AcceptanceReport(
                loader="remote_code" if self.trust_remote_code else "stock",
                libraries=found.libraries,
                samples=sum(len(probe.texts) for probe in self.probes),
                max_difference=outputs.difference,
                tolerance=tolerance,
                parameters=found.stored,
                bytes=found.bytes,
                latency_ms=None if found.latency is None else self._latency(found.latency),
                checks=held,
            )
        onnx = _judge_onnx(expected, found.onnx, tolerance, self.timing.repeats) if expected.onnx else None
        compressed = None if expected.compressed is None else _judge_compressed(expected, expected.compressed, found.compressed)
        return Proof(report, onnx, problem, compressed)

    def _onnx_s(self, expected: Expectation) -> float:
        """Return the seconds that an ONNX graph may take on a CPU, by the multiply-accumulates of all its runs."""
        if not expected.onnx:
            return 0.0
        tokens = [len(probe.texts) * self.dense.longest(probe.length) for probe in self.probes]
        timed = self.timing.batch * self.dense.input_length(self.timing.length) * (fresh.WARM_UP + self.timing.repeats)
        return expected.parameters * (sum(tokens) + timed) / _SLOWEST_MACS_S

    def _request(self, expectations: Sequence[Expectation]) -> Request:
        dense, family = self.dense, self.dense.family
        length = dense.input_length(self.timing.length)
        drawn = family.random_inputs(dense, self.timing.batch, length, torch.Generator().manual_seed(self.seed))
        kind = KINDS[dense.task_type]
        return Request(
            checkpoints=[
                AskedCheckpoint(
                    folder=str(expected.folder.absolute()),
                    onnx=ONNX_PATH if expected.onnx else None,
                    compressed=None if expected.compressed is None else COMPRESSED_PATH,
                    measure_again=expected.measure_again,
                    device_map=expected.device_map,
                )
                for expected in expectations
            ],
            dense=str(self.dense.source.absolute()),
            auto_class=AUTO_CLASSES[self.dense.task_type],
            trust_remote_code=self.trust_remote_code,
            reads=list(family.reads),
            sentences=None if dense.embedder is None else AskedSentences(unit=dense.embedder.unit),
            fact_texts=self.fact_texts,
            kind=kind.reads,
            decoder_start=start_token(dense) if kind.loads_as == "AutoModelForSeq2SeqLM" else None,
            device=str(dense.device),
            probes=[AskedProbe(texts=texts_of(dense, probe), length=dense.longest(probe.length)) for probe in self.probes],
            timing=AskedTiming(
                batch=self.timing.batch,
                length=length,
                threads=self.timing.threads,
                repeats=self.timing.repeats,
                tokens={name: value.tolist() for name, value in drawn.items() if name != "pixel_values"},
                pixels=list(drawn["pixel_values"].shape) if "pixel_values" in drawn else None,
            ),
        )

    @property
    def fact_texts(self) -> list[str]:
        """Texts of the probes, behind the default prompt, whose tokens must be those of the source's tokenizer."""
        if KINDS[self.dense.task_type].reads == "image":
            return []
        prompt = "" if self.dense.embedder is None else self.dense.embedder.recipe.prompt
        return [prompt + text[:_LONGEST_FACT] for probe in self.probes for row in probe.texts for text in row[:2]][:_MOST_FACTS]

    def _compared(self, expected: Expectation, found: Found, tolerance: float) -> tuple[tuple[str, ...], str | None]:
        """Compare how users load a checkpoint, and what else decides their results, with the source.

        Returns:
            The names of the checks that hold, and a sentence on the first that does not.
        """
        held: list[str] = []
        if self.dense.embedder is not None:
            if found.encoded is None:
                return (), "sentence-transformers did not encode in the fresh process"
            encoded = compare_outputs(expected.answers, found.encoded, tolerance)
            if encoded.problem is not None:
                return (), f"encode of sentence-transformers gets {encoded.problem}"
            held.append("encode")
            recipe = self.dense.embedder.recipe
            if recipe.own and read_recipe(expected.folder) != recipe:
                return tuple(held), "its sentence-transformers files do not say what the source's say"
        names, problem = compare_facts(as_users.facts(self.dense.model, self.dense.processor, self.fact_texts), found.facts)
        return (*held, *names), problem

    def _problem_of_latency(self, expected: Expectation, found: FoundLatency | None) -> str | None:
        if found is None:
            return "its latency was not measured again in a fresh process" if expected.measure_again else None
        for model, times in (("dense model", found.dense), ("checkpoint", found.pruned)):
            wrong = problem_of_times(times, self.timing.repeats)
            if wrong is not None:
                return f"a fresh process that was to measure the latency of the {model} again gets {wrong}"
        return None

    def _latency(self, found: FoundLatency) -> LatencyReport:
        shape = self.timing.but(length=self.dense.input_length(self.timing.length))
        return latency_report(found.dense, found.pruned, shape, threads=found.threads, device=str(self.dense.device))


def _raise_if_exhausted(failed: Failure | FailedOnnx | FailedCompressed) -> None:
    lacking = told_of([failed.error, *failed.causes])
    if lacking is not None:
        what = "memory" if lacking is OutOfMemory else "disk space"
        raise lacking(f"the process that proves the bundle ran out of {what}; take a machine with more")


def _judge_onnx(expected: Expectation, found: FoundOnnx | FailedOnnx | None, tolerance: float, repeats: int) -> OnnxReport:
    if found is None:
        return OnnxReport(status="failed", reason="a fresh process did not run it")
    if isinstance(found, FailedOnnx):
        return OnnxReport(status="failed", reason=f"onnxruntime cannot run it ({found.error})")
    outputs = compare_outputs(expected.answers, found.outputs, tolerance)
    problem = outputs.problem or problem_of_times(found.milliseconds, repeats)
    if problem is not None:
        return OnnxReport(status="failed", reason=f"onnxruntime gets {problem}", max_difference=outputs.difference)
    median, spread = median_and_iqr(found.milliseconds)
    size = (expected.folder / ONNX_PATH).stat().st_size
    return OnnxReport(
        status="ok", path=ONNX_PATH, bytes=size, max_difference=outputs.difference, latency_ms=median, latency_iqr=spread
    )


def _judge_compressed(
    expected: Expectation, forms: dict[str, int], own: FoundCompressed | FailedCompressed | None
) -> CompressedReport:
    if own is None:
        return CompressedReport(status="failed", reason="a fresh process did not load it")
    if isinstance(own, FailedCompressed):
        return CompressedReport(status="failed", reason=f"a fresh process cannot load it ({own.error})")
    if own.differing:
        return CompressedReport(status="failed", reason=f"{len(own.differing)} tensors differ, {own.differing[0]} for one")
    if own.compared < max(1, sum(forms.values())):
        reason = f"a fresh process compared {own.compared} tensors of a checkpoint with {sum(forms.values())} prunable matrices"
        return CompressedReport(status="failed", reason=reason)
    size = sum(path.stat().st_size for path in (expected.folder / COMPRESSED_PATH).glob("*.safetensors"))
    if own.bytes != size or own.stored < 1:
        reason = f"a fresh process counts {own.stored} values in {own.bytes} bytes of weights, the worker counted {size} bytes"
        return CompressedReport(status="failed", reason=reason)
    return CompressedReport(status="ok", path=COMPRESSED_PATH, bytes=own.bytes, forms=forms)


def time_limit(seconds: SecondsReport) -> float:
    """Return the seconds that the fresh process may take: 20 times what the run took for the same work, at least 10 minutes.

    Args:
        seconds: Times of the run so far. The stages that load, write and read back, evaluate and measure latency count. Those
            of all checkpoints are added up, because one process proves them all.
    """
    stages: tuple[Stage, ...] = ("load", "materialise", "evaluate", "latency")
    return max(_LEAST_LIMIT_S, _TIMES * sum(seconds.by_stage[stage] for stage in stages))


def _run(request: Request, limit_s: float, ahead: Ahead | None, on_step: Callable[[int], None]) -> list[Found | Failure] | str:
    """Run the fresh process; return a sentence where it ended without an answer, or did not end in time."""
    returning = any(checkpoint.device_map for checkpoint in request.checkpoints)
    if request.device.startswith("cuda"):
        torch.cuda.empty_cache()
    if ahead is not None and ahead.waits and not returning:
        ahead.desk.ask(request.model_dump_json())
        return _read(ahead.desk, ahead.process.wait(limit_s, _Steps(ahead.desk.stage, on_step).tell), limit_s)
    with tempfile.TemporaryDirectory(prefix="coppice-accept-") as scratch:
        desk = Desk(Path(scratch))
        desk.ask(request.model_dump_json())
        environment = desk.environment | (_RETURNING_MEMORY if returning else {})
        tell = _Steps(desk.stage, on_step).tell
        code = run_limited(desk.command, cwd=desk.folder, env=environment, log=desk.log, limit_s=limit_s, meanwhile=tell)
        return _read(desk, code, limit_s)


class _Steps:
    """The steps of the fresh process, by the stage that it writes down."""

    def __init__(self, stage: Path, on_step: Callable[[int], None]) -> None:
        self._stage, self._on_step, self._told = stage, on_step, 0

    def tell(self) -> None:
        """Tell of the steps that are done, if there are more than before. A stage that is half written waits."""
        with suppress(OSError, ValueError):
            name, number, _count = self._stage.read_text(encoding="utf-8").split()
            step = STEPS * (int(number) - 1) + list(_DOING).index(name)
            if step > self._told:
                self._told = step
                self._on_step(step)


def _read(desk: Desk, code: int | None, limit_s: float) -> list[Found | Failure] | str:
    """Read the answer of a process that has ended."""
    if code == -signal.SIGKILL:
        raise OutOfMemory("the process that proves the bundle was killed, most likely for its memory")
    try:
        if code is not None:
            return Result.model_validate_json(f'{{"found": {desk.answered.read_text(encoding="utf-8")}}}').found
    except (OSError, ValidationError) as error:
        raise_if_exhausted(error, "the answer of the process that proves the bundle was read")
    lines = desk.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    sys.stderr.write("\n".join(lines[-30:]) + "\n")  # details for the log; people read the sentence
    if code is None:
        return f"the fresh process that was to prove it was stopped after {limit_s:.0f} s, {_reached(desk.stage)}"
    return f"the fresh process that was to load it ended with exit code {code}"


def _reached(stage: Path) -> str:
    """Describe what the fresh process was doing, by the last stage that it wrote down."""
    with suppress(OSError, ValueError):
        name, number, count = stage.read_text(encoding="utf-8").split()
        which = f", checkpoint {number} of {count}" if count != "1" else ""
        return f"{_DOING.get(name, name)}{which}"
    return _DOING["start"]
