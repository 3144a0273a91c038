"""The proof in engines: each one that was asked for loads the bundle, in a process and an environment of its own.

A row of the report each: it works, or the reason why not. An engine that is missing, crashes, hangs, runs out of memory or
gives other tokens costs its row, never the bundle; nothing waits longer than the limit.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from pydantic import ValidationError

from pruning_core.artifacts.engines import reasons
from pruning_core.artifacts.engines.forms import Form, NoForm, dense_form, form_of
from pruning_core.artifacts.engines.inputs import Inputs, inputs_for
from pruning_core.artifacts.engines.judging import Judged, judge, speeds_of, tolerance_of
from pruning_core.artifacts.engines.messages import EngineFound, EngineRequest
from pruning_core.artifacts.probes import ProbeInput
from pruning_core.artifacts.process import run_limited
from pruning_core.data.rows import Rows
from pruning_core.engines.refusing import reason_by_task
from pruning_core.engines.registry import ENGINES, EngineFacts, Found, Missing, find
from pruning_core.machine.resources import disk_is_full, memory_is_full
from pruning_core.models.load import load_task_model
from pruning_core.models.placement import free_memory
from pruning_core.report.engines import EngineReport, ExportReport
from pruning_core.spec.prune import AUTO_CLASSES, PruneSpec
from pruning_core.tasks.base import TaskModel

# Tokens of an engine's process are many at once; what is left to the others of the machine, and for the files it maps.
_SPARED_BYTES = 2**28
_LEAST_BYTES = 2**28
# Variables that the process keeps of ours: what finds programs and libraries, and how many threads they take.
_KEPT = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD"})
_KEPT_FAMILIES = ("LC_", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "MALLOC_", "DNNL_", "ONEDNN_")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A written checkpoint to be proven.

    Attributes:
        folder: Its folder.
        exports: Rows of the report on its further formats.
        onnx: Path of its ONNX graph in the folder; None where there is none.
        onnx_problem: Why there is none, if one was asked for.
    """

    folder: Path
    exports: tuple[ExportReport, ...] = ()
    onnx: str | None = None
    onnx_problem: str | None = None


@dataclass(frozen=True, slots=True)
class EngineProver:
    """Has checkpoints proven in the engines that a spec asks for.

    Attributes:
        spec: The request.
        dense: The dense model.
        held_out: Rows whose texts are scored by models that generate.
        probes: Batches of held-out inputs, for other models.
        trust_remote_code: Whether the bundle has a loader of its own.
        limit_s: Seconds that the process of one engine may take.
        folder: The folder of engines' environments; None: see `registry.engines_folder`.
        refuses: Says why an engine can't hold the bundle, as a sentence; None where it can.
    """

    spec: PruneSpec
    dense: TaskModel
    held_out: Rows
    probes: tuple[ProbeInput, ...]
    trust_remote_code: bool
    limit_s: float
    folder: Path | None = None
    refuses: Callable[[str], str | None] = lambda _engine: None

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines, in the order of the request."""
        return tuple(self.spec.artifacts.engines)

    def prove(self, checkpoint: Checkpoint, on_step: Callable[[int], None] = lambda _step: None) -> tuple[EngineReport, ...]:
        """Run every engine on a checkpoint, one after the other.

        Args:
            checkpoint: The checkpoint.
            on_step: Called with the number of engines that are done.
        """
        inputs: Inputs | str | None = None
        rows: list[EngineReport] = []
        for step, name in enumerate(self.engines, start=1):
            row = self._refused(ENGINES[name])
            found = find(name, self.folder, tries=False) if row is None else None
            if isinstance(found, Missing):
                row = _missing(found)
            if isinstance(found, Found):
                inputs = inputs if inputs is not None else self._inputs(checkpoint)
                row = self._run(found, checkpoint, inputs)
            assert row is not None, "an engine is refused, missing or found"
            rows.append(row)
            on_step(step)
        return tuple(rows)

    def _refused(self, engine: EngineFacts) -> EngineReport | None:
        """Return the row of an engine that can't hold the model; None where it may."""
        reason = reason_by_task(engine, self.spec)
        if reason is None and self.dense.pages is not None:
            reason = "the model is larger than the memory of its device, and an engine loads all of it at once"
        elif reason is None:
            reason = self.refuses(engine.name)
        return None if reason is None else EngineReport(engine=engine.name, status="refused", reason=reason)

    def _inputs(self, checkpoint: Checkpoint) -> Inputs | str:
        """Compute what every engine must reproduce; return a reason where that fails."""
        try:
            pruned = load_task_model(checkpoint.folder, self.spec.task.type, self.dense.device)
            return inputs_for(pruned, self.held_out, self.probes, self.spec)
        except Exception as error:  # the bundle stands, proven by `acceptance`; only the engines have nothing to be held to
            if not (memory_is_full(error) or disk_is_full(error)):
                raise
            return "the reference that it is compared with took more memory than there is"

    def _run(self, found: Found, checkpoint: Checkpoint, inputs: Inputs | str) -> EngineReport:
        engine = found.engine
        row = EngineReport(engine=engine.name, version=found.version, status="failed")
        if isinstance(inputs, str):
            return row.but(reason=inputs)
        form = form_of(engine.loads, checkpoint)
        if isinstance(form, NoForm):
            return row.but(reason=form.reason)
        row = row.but(path=form.path)
        try:
            with tempfile.TemporaryDirectory(prefix="coppice-engine-", ignore_cleanup_errors=True) as scratch:
                place = Path(scratch)
                dense = dense_form(engine.loads, form, self.dense, self.spec.artifacts, place / "dense", engines=self.folder)
                request = self._request(engine, checkpoint.folder / form.path, dense, form, inputs)
                hidden = {str(checkpoint.folder): ".", str(self.dense.source): "the dense model", scratch: "."}
                answer = _answer(found, request, place, self.limit_s, hidden)
        except OSError as error:
            what = "there is no room on the disk for what it needs" if disk_is_full(error) else "its process cannot be started"
            return row.but(reason=f"{engine.title} cannot be run: {what}")
        return self._judged(row, engine, form, inputs, answer)

    def _request(self, engine: EngineFacts, path: Path, dense: Path | None, form: Form, inputs: Inputs) -> EngineRequest:
        of_texts = engine.name == "sentence-transformers"
        embedder = self.dense.embedder
        return EngineRequest(
            use="generation" if inputs.texts else "outputs",
            path=str(path.absolute()),
            dense=None if dense is None else str(dense.absolute()),
            auto_class=AUTO_CLASSES[self.spec.task.type],
            trust_remote_code=self.trust_remote_code,
            reads=list(self.dense.family.reads),
            unit=embedder is not None and embedder.unit,
            texts=inputs.texts,
            prompts=inputs.prompts,
            new_tokens=inputs.new_tokens,
            positions=inputs.positions,
            inputs=inputs.sentences if of_texts else inputs.passes,
            timing=inputs.timing.model_copy(update={"inputs": inputs.sentence_timing}) if of_texts else inputs.timing,
            threads=self.spec.latency.threads,
            dtype=form.dtype,
        )

    def _judged(
        self, row: EngineReport, engine: EngineFacts, form: Form, inputs: Inputs, answer: EngineFound | str
    ) -> EngineReport:
        if isinstance(answer, str):
            return row.but(reason=answer)
        notes = list(form.notes)
        if answer.error is not None and answer.stage in ("import", "load", "run"):
            if answer.stage == "import":
                why = f"{engine.title} cannot be imported in its environment ({answer.error})"
                return _missing(Missing(engine, why, engine.how)).but(version=row.version)
            return row.but(reason=reasons.of_error(engine.title, answer))
        if answer.error is not None:
            notes.append(reasons.of_timing(answer))
        tolerance = tolerance_of(answer.dtype)
        reference = inputs.sentence_reference if engine.name == "sentence-transformers" else inputs.reference
        judged: Judged = judge(answer, reference, tolerance)
        timing = inputs.timing
        dense, pruned = speeds_of(answer.speeds, len(timing.prompt), timing.new_tokens)
        return row.but(
            status="ok" if judged.problem is None else "failed",
            reason=None if judged.problem is None else f"{engine.title} gives {judged.problem}",
            version=answer.version or row.version,
            texts=len(inputs.texts) or sum(len(probe.texts) for probe in self.probes),
            tokens=judged.tokens,
            decided=judged.decided,
            agreement=judged.agreement,
            margin=tolerance.margin,
            max_difference=judged.difference,
            tolerance=tolerance.difference,
            continuations=len(reference.written),
            same_continuations=judged.same,
            new_tokens=inputs.new_tokens,
            generated=self._said(answer),
            dense=dense,
            pruned=pruned,
            notes=tuple([f"computed in {answer.dtype}", *notes] if answer.dtype else notes),
        )

    def _said(self, answer: EngineFound) -> str | None:
        if not answer.generated:
            return None
        try:
            return str(self.dense.tokenizer.decode(answer.generated[0]))
        except Exception:  # tokens of the engine's making that the tokenizer does not know
            return None


def _missing(missing: Missing) -> EngineReport:
    reason = f"{missing.why}; install it: {missing.how}"
    return EngineReport(engine=missing.engine.name, status="missing", reason=reason)


def environment_for(scratch: Path) -> dict[str, str]:
    """Return the environment of an engine's process, by an allow-list; nothing of it reaches for the network."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_FAMILIES)}
    home = str(scratch)
    return kept | {
        "HOME": home,
        "USER": "coppice",
        "LOGNAME": "coppice",
        "TMPDIR": home,
        "XDG_CACHE_HOME": f"{home}/cache",
        "XDG_CONFIG_HOME": f"{home}/config",
        "HF_HOME": f"{home}/huggingface",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _answer(
    found: Found, request: EngineRequest, scratch: Path, limit_s: float, hidden: Mapping[str, str] = MappingProxyType({})
) -> EngineFound | str:
    """Run an engine's script; return a sentence where it ended without an answer."""
    asked, answered, log, stage = (scratch / name for name in ("request.json", "result.json", "log", "stage"))
    asked.write_text(request.model_dump_json(), encoding="utf-8")
    script = Path(__file__).with_name(f"{found.engine.script}.py")
    # -P: the script's own folder, which is part of our package, stays off the module path.
    command = [str(found.interpreter), "-P", str(script), str(asked), str(answered), str(os.getpid()), str(stage)]
    memory = max(_LEAST_BYTES, free_memory(torch.device("cpu")) - _SPARED_BYTES)
    code = run_limited(command, cwd=scratch, env=environment_for(scratch), log=log, limit_s=limit_s, memory_bytes=memory)
    reached = ""
    with suppress(OSError):
        reached = stage.read_text(encoding="utf-8")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    answer: EngineFound | None = None
    with suppress(OSError, ValidationError):
        answer = EngineFound.model_validate_json(answered.read_bytes())
    if answer is not None and answer.error is None and (code is None or code != 0 or answer.speeds is None):
        # It answered, and did not come back from the clock.
        answer = answer.model_copy(update={"error": reasons.of_end(code, limit_s), "stage": reached or "time"})
    if answer is None or answer.error is not None:
        sys.stderr.write("\n".join(lines[-30:]) + "\n")  # details for the log; people read the sentence
    if answer is None:
        return reasons.of_silence(found.engine.title, code, limit_s, reached, lines)
    return reasons.without(answer, hidden)
