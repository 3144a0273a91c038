"""``make bench-prune``: the time of pruning, stage by stage, compared with a floor and with the published recoveries.

The floor is one forward and one activation-backward pass of the dense model over the same calibration tokens, in the same
precision, on the same threads, in the same run. Everything is measured in turns, and the best round counts. On one CPU thread,
the default, processor time is counted. Three configurations are compared: our defaults; the paper's (rearranged masks, scalar
scales by plain conjugate gradient; Li, Zhu, Sun 2024); and Kwon's recovery, which runs layers again (`benchmarks.kwon`).
Prints a table for each model and, as the last line of stdout, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.kwon import recover_by_rerunning_
from benchmarks.models import SHARED, random_bert_base, shared_model
from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.masks import Mask
from pruning_core.budgets import budget_for
from pruning_core.data.read import read_rows
from pruning_core.evidence.calibration import batch_tokens_for, draw, tokenise
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context, Evidence, generator
from pruning_core.evidence.states import DenseStates
from pruning_core.machine.precision import matmul_dtype, products_in
from pruning_core.methods.fisher_cg.options import FisherCG
from pruning_core.methods.fisher_cg.scores import FisherCGMethod
from pruning_core.models.load import load_task_model
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.spec.prune import PruneSpec, RecoverySpec
from pruning_core.spec.targets import KeepTarget
from pruning_core.stats.fisher import loss_sum
from pruning_core.tasks.base import TaskModel

_PAPER = FisherCG.presets["paper"]
STAGES = ("calibrate", "score", "search", "rearrange", "recover")


def floor(model: TaskModel, evidence: Evidence) -> float:
    """Return the seconds of one forward and one backward pass to the input of the first block, over all calibration batches."""
    objective = loss_sum(model.task_type)
    began = seconds()
    for cpu_batch in evidence.calibration.batches:
        batch = cpu_batch.to(model.device)
        first: list[torch.Tensor] = []

        def start(
            _module: object, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor], first: list[torch.Tensor] = first
        ) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
            hidden = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_()
            first.append(hidden)
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        handle = evidence.dense.first_block.register_forward_pre_hook(start, with_kwargs=True)
        with torch.enable_grad(), products_in(evidence.dtype, model.device):
            value = objective(model.outputs(batch.inputs).float(), batch)
        torch.autograd.grad(value, first)
        handle.remove()
    synchronise(model.device)
    return seconds() - began


def seconds() -> float:
    """Return the time of the clock. One CPU thread is timed by processor time, which other programs disturb less."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if alone else time.perf_counter()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Case:
    """One model with its calibration rows."""

    def __init__(
        self, name: str, folder: Path, *, shared: Path, task: str, samples: int, precision: str, device: torch.device
    ) -> None:
        self.name, self.samples = name, samples
        self.spec = PruneSpec.model_validate(
            {
                "model": str(folder),
                "task": f"glue/{task}",
                "data": str(shared / "data" / "glue" / task),
                "target": {"metric": "macs", "keep": 0.5},
                "calibration": {"samples": samples, "precision": precision},
            }
        )
        self.model = load_task_model(folder, self.spec.task.type, device)
        self.rows = read_rows(self.spec.task, "train")

    @classmethod
    def of_shared(cls, shared: Path, task: str, *, samples: int, precision: str, device: torch.device) -> Case:
        """Load a fine-tuned model of ``../shared`` with its own task."""
        folder = shared_model(shared, task)
        return cls(f"minilm-{task}", folder, shared=shared, task=task, samples=samples, precision=precision, device=device)

    def evidence(self) -> Evidence:
        """Draw and tokenise the calibration samples, as a run does."""
        options, adapter = self.spec.calibration, adapt(self.model.model)
        tokens = tokenise(
            self.model,
            draw(self.rows, 2 * options.samples, generator(0, "calibration")),
            max_length=options.max_length,
            batch_tokens=batch_tokens_for(adapter.groups, self.model.device, options, self.model.entries),
            longest=options.samples,
        )
        states = DenseStates(adapter, tokens.batches, options.memory_mb * 2**20)
        return Evidence(adapter, tokens, states, matmul_dtype(options.precision, self.model.device))

    def ours(self) -> dict[str, float]:
        """Prune with the defaults. Return the seconds by stage."""
        return self._prune(FisherCG(), lambda student, mask, evidence: self._recover(student, mask, evidence, RecoverySpec()))

    def paper(self) -> dict[str, float]:
        """Prune with the paper's configuration. Return the seconds by stage."""
        spec = RecoverySpec(**_PAPER.within("recovery"))
        method = FisherCG(**_PAPER.within("method"))
        return self._prune(method, lambda student, mask, evidence: self._recover(student, mask, evidence, spec))

    def kwon(self) -> dict[str, float]:
        """Prune with Kwon's recovery. Return the seconds by stage."""
        return self._prune(
            FisherCG(**_PAPER.within("method")),
            lambda student, mask, evidence: recover_by_rerunning_(adapt(student.model), mask, evidence),
        )

    def _recover(self, student: TaskModel, mask: Mask, evidence: Evidence, spec: RecoverySpec) -> None:
        prune_and_recover_(adapt(student.model), mask, evidence, spec, on_sublayer=lambda _done: None)

    def _prune(self, method: FisherCG, recover: Callable[[TaskModel, Mask, Evidence], None]) -> dict[str, float]:
        clock = StageClock(lambda _progress: None, seconds)
        with clock.stage("calibrate"):
            evidence = self.evidence()
        ctx = Context(self.model, evidence, clock, 0)
        runner = FisherCGMethod(method)
        scores = runner.prepare(ctx)
        target = KeepTarget(metric="macs", keep=0.5)
        budget = budget_for(
            target, ctx.groups, total_params=self.model.parameter_count(), length=evidence.calibration.mean_length
        )
        mask = runner.plan(scores, budget, ctx)
        with clock.stage("recover"):
            recover(self.model.with_model(clone(self.model.model)), mask, evidence)
            synchronise(self.model.device)
        by_stage = clock.report().by_stage
        return {stage: by_stage[stage] for stage in STAGES}


def measure(case: Case, rounds: int) -> dict[str, object]:
    evidence = case.evidence()
    floors: list[float] = []
    found: dict[str, list[dict[str, float]]] = {"ours": [], "paper": [], "kwon": []}
    floor(case.model, evidence)
    for _ in range(rounds):
        floors.append(floor(case.model, evidence))
        for name, prune in (("ours", case.ours), ("paper", case.paper), ("kwon", case.kwon)):
            found[name].append(prune())
    best = min(floors)
    totals = {name: min(runs, key=lambda run: sum(run.values())) for name, runs in found.items()}
    return {
        "model": case.name,
        "samples": case.samples,
        "tokens": evidence.calibration.tokens,
        "dtype": str(evidence.dtype).removeprefix("torch."),
        "device": str(case.model.device),
        "threads": torch.get_num_threads(),
        "forward_backward_seconds": best,
        "seconds": {name: {**run, "total": sum(run.values())} for name, run in totals.items()},
        "ratio": {name: sum(run.values()) / best for name, run in totals.items()},
        "recover_speedup_over_kwon": totals["kwon"]["recover"] / totals["ours"]["recover"],
    }


def show(row: dict[str, object], console: Console) -> None:
    taken: dict[str, dict[str, float]] = row["seconds"]
    where = f"{row['dtype']}, {row['device']}, {row['threads']} threads"
    table = Table(title=f"{row['model']}: {row['samples']} samples, {row['tokens']} tokens, {where}")
    for heading in ("seconds", "our defaults", "paper (CG scales)", "Kwon (LSMR, re-runs)"):
        table.add_column(heading, justify="right")
    for stage in (*STAGES, "total"):
        table.add_row(stage, *(f"{taken[name][stage]:.2f}" for name in ("ours", "paper", "kwon")))
    table.add_row("x forward + backward", *(f"{row['ratio'][name]:.2f}" for name in ("ours", "paper", "kwon")))
    console.print(table)
    console.print(f"forward + activation-backward: {row['forward_backward_seconds']:.2f} s\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", help="default: float32 and auto for minilm, auto for bert-base")
    parser.add_argument("--models", nargs="+", default=["minilm", "bert-base"], choices=["minilm", "bert-base"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; of one, processor time is counted")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    console, rows = Console(), []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.models:
            folder = (
                shared_model(options.shared, "sst2") if name == "minilm" else random_bert_base(Path(scratch), options.shared)
            )
            for precision in options.precision or (["float32", "auto"] if name == "minilm" else ["auto"]):
                case = Case(
                    name,
                    folder,
                    shared=options.shared,
                    task="sst2",
                    samples=options.samples,
                    precision=precision,
                    device=torch.device(options.device),
                )
                rows.append(measure(case, options.rounds if name == "minilm" else max(1, options.rounds - 1)))
                show(rows[-1], console)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
