"""Tables of engines: small stacks of layers are written as bundles are, and timed in the engine's own process.

One process times all of a table, so that an engine's start is paid once. A table does not depend on the weights. It is kept
beside the tables of the job's device, under a key of all facts that decide it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import torch
from pydantic import ValidationError

from pruning_core.arch.adapter import ModelAdapter, adapt, clone
from pruning_core.arch.cut import drop_sublayers_, slice_
from pruning_core.arch.masks import Mask
from pruning_core.artifacts import stock
from pruning_core.artifacts.bundle import write_checkpoint
from pruning_core.artifacts.engines import reasons
from pruning_core.artifacts.engines.forms import NoForm, form_of
from pruning_core.artifacts.engines.inputs import TIMED_PROMPT, TIMED_TOKENS
from pruning_core.artifacts.engines.messages import EngineFound, EngineRequest, EngineTiming
from pruning_core.artifacts.engines.prover import Checkpoint, environment_for
from pruning_core.artifacts.exports import openvino
from pruning_core.artifacts.exports.base import Exported
from pruning_core.artifacts.exports.registry import export_all
from pruning_core.artifacts.onnx import ONNX_PATH, ExportFailed, export_onnx
from pruning_core.artifacts.process import run_limited
from pruning_core.engines.registry import EngineFacts, Found, use_of
from pruning_core.errors import EngineUnusable
from pruning_core.machine.environment import processor_name
from pruning_core.machine.finite import require_finite
from pruning_core.measure.engine_table import UNSTEADY, EngineTable, Shapes, Stack, StackTime, unsteadiness
from pruning_core.measure.kept import read_kept, write_kept
from pruning_core.measure.latency_table import UNTIMED
from pruning_core.models.load import load_task_model
from pruning_core.models.placement import free_memory
from pruning_core.report.engines import ExportReport
from pruning_core.spec.prune import AUTO_CLASSES, PruneSpec
from pruning_core.spec.targets import Phase
from pruning_core.tasks.base import TaskModel

# Turns of each stack after the first, and seconds after which no further turn is begun.
_TURNS, _BUDGET_S = 7, 150.0
# Stacks are loaded all at once where they take no more than this share of the free memory, with room for each one's cache.
_SHARE, _CACHE_BYTES = 0.4, 2**30
_SPARED_BYTES, _LEAST_BYTES = 2**28, 2**28
_FLOAT = 4


class StacksRequest(EngineRequest):
    """The request to the process: that of the proof, for several checkpoints. ``together``: they are loaded at once."""

    stacks: list[str]
    together: bool


class StacksFound(EngineFound):
    """The findings: of every stack, the seconds of each turn."""

    times: list[list[dict[str, float]]] | None = None


@dataclass(frozen=True, slots=True)
class Timer:
    """Times stacks of a dense model's layers in one engine.

    Attributes:
        spec: The request.
        dense: The dense model.
        found: The engine.
        limit_s: Seconds that its process may take.
        cache: Folder of kept tables; None: keep nothing.
        folder: The folder of engines' environments; None: see `registry.engines_folder`.
    """

    spec: PruneSpec
    dense: TaskModel
    found: Found
    limit_s: float
    cache: Path | None
    folder: Path | None = None

    def table(
        self, shapes: Shapes, phases: Sequence[Phase | None], on_step: Callable[[int], None] = lambda _step: None
    ) -> EngineTable:
        """Return the table of the shapes that layers may get: as it was kept, or measured now.

        Args:
            shapes: The shapes.
            phases: What is to be read of the table.
            on_step: Called with the number of stacks that are written.

        Raises:
            EngineUnusable: The engine cannot be timed, or its times contradict each other.
        """
        adapter = adapt(self.dense.model)
        stacks = self.stacks(shapes)
        kept = self._kept(stacks)
        table = None if kept is None else read_kept(kept, EngineTable)
        if table is not None and all(unsteadiness(table, shapes, phase) <= UNSTEADY for phase in phases):
            return table
        with tempfile.TemporaryDirectory(prefix="coppice-engine-", ignore_cleanup_errors=True) as scratch:
            table = self._measured(adapter, stacks, Path(scratch), on_step)
        worst = max(unsteadiness(table, shapes, phase) for phase in phases)
        if worst > UNSTEADY:
            raise EngineUnusable(
                f"the times that were measured in {self.found.engine.title} contradict each other by {worst:.0%}: wider or "
                "deeper models came out faster, as on a busy machine; run the job again when it is not",
                param="target.engine",
            )
        if kept is not None:
            write_kept(kept, table)
        return table

    def stacks(self, shapes: Shapes) -> tuple[Stack, ...]:
        """List what a table times."""
        return shapes.stacks(_layer_bytes(adapt(self.dense.model)))

    def _measured(
        self, adapter: ModelAdapter, stacks: tuple[Stack, ...], scratch: Path, on_step: Callable[[int], None]
    ) -> EngineTable:
        paths: list[Path] = []
        dtype = "float32"
        for step, stack in enumerate(stacks):
            on_step(step)
            path, dtype = self._written(adapter, stack, scratch / f"stack-{step}")
            paths.append(path)
        on_step(len(stacks))
        times = self._timed(self._request(adapter, stacks, paths, dtype), scratch)
        for stack, found in zip(stacks, times.times or [], strict=True):
            for value in (seconds for turn in found for seconds in turn.values()):
                require_finite(value, f"the time of {stack.depth} layers in {self.found.engine.title}")
        return EngineTable(
            engine=self.found.engine.name,
            version=times.version or self.found.version,
            dtype=times.dtype or dtype,
            threads=self.spec.latency.threads,
            times=tuple(
                StackTime(
                    depth=stack.depth,
                    heads=stack.heads,
                    neurons=stack.neurons,
                    seconds=_seconds(found),
                )
                for stack, found in zip(stacks, times.times or [], strict=True)
            ),
        )

    def _written(self, adapter: ModelAdapter, stack: Stack, folder: Path) -> tuple[Path, str]:
        """Write a stack in the form that the engine loads; return the form's path, and the type that it is computed in."""
        engine, options = self.found.engine, self.spec.artifacts
        folder.mkdir()
        write_checkpoint(folder, self.dense, adapter, _cut(self.dense, adapter, stack), options)
        form = form_of(engine.loads, self._exported(engine, folder))
        if isinstance(form, NoForm):
            raise EngineUnusable(
                f"a table of latencies cannot be measured in {engine.title}: {form.reason}", param="target.engine"
            )
        return folder / form.path, form.dtype

    def _exported(self, engine: EngineFacts, folder: Path) -> Checkpoint:
        match engine.loads:
            case "checkpoint":
                return Checkpoint(folder)
            case "onnx":
                try:
                    export_onnx(self._loaded(folder), folder)
                except ExportFailed as error:
                    return Checkpoint(folder, onnx_problem=f"the exporter cannot express the model ({error})")
                return Checkpoint(folder, onnx=ONNX_PATH)
            case "openvino":
                openvino.write_graph(self._loaded(folder), folder / openvino.PATH)
                row = ExportReport(format=openvino.FORMAT, kind="FP16", status="ok", path=openvino.PATH)
                return Checkpoint(folder, (row,))
            case "gguf":
                options = self.spec.artifacts.but(formats=("safetensors", "gguf"), gguf=self.spec.artifacts.gguf[:1])
                asked = Exported(folder, self._loaded(folder), self.dense, options, engines=self.folder)
                return Checkpoint(folder, export_all(asked))
            case _:
                assert_never(engine.loads)

    def _loaded(self, folder: Path) -> TaskModel:
        return load_task_model(folder, self.spec.task.type, torch.device("cpu"))

    def _request(self, adapter: ModelAdapter, stacks: tuple[Stack, ...], paths: list[Path], dtype: str) -> StacksRequest:
        use = use_of(self.spec.task.type)
        assert use != "sequences", "no engine serves encoder-decoders"
        outside = self.dense.parameter_count() * _FLOAT - _layer_bytes(adapter) * len(adapter.blocks)
        whole = sum(2 * outside + stack.depth * _layer_bytes(adapter) + _CACHE_BYTES for stack in stacks)
        embedder = self.dense.embedder
        return StacksRequest(
            use=use,
            path=str(paths[0].absolute()),
            dense=None,
            auto_class=AUTO_CLASSES[self.spec.task.type],
            trust_remote_code=self.spec.artifacts.layout != "stock",
            reads=list(self.dense.family.reads),
            unit=embedder is not None and embedder.unit,
            positions=self.dense.longest(2**20),
            timing=self._timing(),
            threads=self.spec.latency.threads,
            dtype=dtype,
            stacks=[str(path.absolute()) for path in paths],
            together=whole <= _SHARE * free_memory(torch.device("cpu")),
        )

    def _timing(self) -> EngineTiming:
        """Return what is timed: as much as the proof times afterwards."""
        dense, shape = self.dense, self.spec.latency
        draw = torch.Generator().manual_seed(self.spec.seed)
        if use_of(self.spec.task.type) == "generation":
            most = dense.longest(TIMED_PROMPT + TIMED_TOKENS)
            prompt = torch.randint(dense.entries, (max(1, most - TIMED_TOKENS),), generator=draw).tolist()
            return EngineTiming(
                prompt=prompt[:TIMED_PROMPT], new_tokens=min(TIMED_TOKENS, most - 1), turns=_TURNS, budget_s=_BUDGET_S
            )
        length = dense.input_length(shape.length)
        if self.found.engine.name == "sentence-transformers":
            text = " ".join(word for row in dense.family.example for word in row) + " "
            inputs: dict[str, Any] = {"texts": [text * length] * shape.batch, "length": length, "batch": shape.batch}
        else:
            drawn = dense.family.random_inputs(dense, shape.batch, length, draw)
            inputs = {name: value.tolist() for name, value in drawn.items()}
            known = dense.family.probe_inputs(dense, dense.family.example, dense.longest(8)).inputs
            inputs |= {name: torch.zeros(shape.batch, length).long().tolist() for name in known if name not in inputs}
        return EngineTiming(inputs=inputs, turns=_TURNS, budget_s=_BUDGET_S)

    def _timed(self, request: StacksRequest, scratch: Path) -> StacksFound:
        """Run the process.

        Raises:
            EngineUnusable: It gave no times.
        """
        engine = self.found.engine
        asked, answered, log, stage = (scratch / name for name in ("request.json", "result.json", "log", "stage"))
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        script = Path(__file__).with_name("time_stacks.py")
        command = [str(self.found.interpreter), "-P", str(script), engine.script, str(asked), str(answered)]
        command += [str(os.getpid()), str(stage)]
        memory = max(_LEAST_BYTES, free_memory(torch.device("cpu")) - _SPARED_BYTES)
        environment = environment_for(scratch)
        code = run_limited(command, cwd=scratch, env=environment, log=log, limit_s=self.limit_s, memory_bytes=memory)
        reached, found = "", None
        with suppress(OSError):
            reached = stage.read_text(encoding="utf-8")
        with suppress(OSError, ValidationError):
            found = StacksFound.model_validate_json(answered.read_bytes())
        if found is not None and found.error is None and found.times and all(found.times):
            return found
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        sys.stderr.write("\n".join(lines[-30:]) + "\n")  # details for the log; people read the sentence
        if found is None or found.error is None:
            why = reasons.of_silence(engine.title, code, self.limit_s, reached, lines)
        else:
            why = reasons.of_error(engine.title, reasons.without(found, {str(scratch): "."}))
        raise EngineUnusable(f"no table of latencies could be measured in {engine.title}: {why}", param="target.engine")

    def _kept(self, stacks: tuple[Stack, ...]) -> Path | None:
        """Return the file of the cache; None without a cache."""
        if self.cache is None:
            return None
        digest = hashlib.sha256(json.dumps(self._facts(stacks), sort_keys=True, default=str).encode()).hexdigest()
        return self.cache / f"engine-{digest[:32]}.json"

    def _facts(self, stacks: tuple[Stack, ...]) -> Mapping[str, Any]:
        """Return the facts that decide a table. If one of them changes, it is measured again."""
        options, model = self.spec.artifacts, self.dense.model
        return {
            "version": 1,
            "engine": [self.found.engine.name, dict(self.found.versions), str(self.found.interpreter)],
            "processor": processor_name(),
            "threads": self.spec.latency.threads,
            "model": [type(model).__name__, self.dense.stored_dtype, self.dense.parameter_count()],
            "config": {name: value for name, value in model.config.to_dict().items() if name not in UNTIMED},
            "form": [options.layout, options.dtype, self.found.engine.loads, options.gguf[0]],
            "stacks": [[own.depth, own.heads, own.neurons] for own in stacks],
            "timing": [TIMED_PROMPT, TIMED_TOKENS, self.spec.latency.batch, self.dense.input_length(self.spec.latency.length)],
        }


def _seconds(turns: list[dict[str, float]]) -> dict[str, float]:
    """Return the smallest times of all turns, since other processes can only make a call slower."""
    least = {name: min(turn[name] for turn in turns) for name in turns[0]}
    whole = least.pop("whole_s", None)
    # Not the smallest difference of a turn: that would be one whose prompt was slow.
    return least if whole is None else least | {"decode_s": max(whole - least["prefill_s"], 1e-9)}


def _layer_bytes(adapter: ModelAdapter) -> int:
    """Return the bytes of the largest layer in float32."""
    return _FLOAT * max(sum(own.numel() for own in block.parameters()) for block in adapter.blocks)


def _cut(dense: TaskModel, adapter: ModelAdapter, stack: Stack) -> Any:
    """Cut a stack out of the dense model: its first layers, narrowed to their first units. Its weights are no matter."""
    student = clone(dense.model)
    there = [group.layer < stack.depth for group in adapter.groups]
    layers = [torch.full((group.size,), own) for group, own in zip(adapter.groups, there, strict=True)]
    drop_sublayers_(student, Mask(tuple(layers)))
    groups = adapt(student).groups
    stock.describe_(student.config, groups)
    heads = {True: stack.heads or groups[0].size, False: stack.heads}  # the first layer keeps its attention
    counts = [heads[group.layer == 0] if group.kind == "head" else stack.neurons for group in groups]
    slice_(student, Mask(tuple(torch.arange(group.size) < own for group, own in zip(groups, counts, strict=True))))
    return student
