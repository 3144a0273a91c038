"""Random Llamas of real sizes, scored, pruned to 80 % of their MACs and repaired: seconds, memory, and what it is worth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.models import (
    LLAMA_1B,
    LLAMA_7B,
    TINY,
    Size,
    as_task,
    beside,
    clocked,
    evidence_of,
    forget_peak,
    llama,
    peak_gb,
)
from benchmarks.gpu.parts import Emit, Setting
from benchmarks.prune import floor
from pruning_core.arch.adapter import adapt, clone
from pruning_core.budgets import budget_for
from pruning_core.evidence.clock import StageClock
from pruning_core.evidence.context import Context
from pruning_core.methods.fisher_cg.options import FisherCG
from pruning_core.methods.fisher_cg.scores import FisherCGMethod
from pruning_core.models.load import load_task_model
from pruning_core.recovery.sequential import prune_and_recover_
from pruning_core.spec.prune import RecoverySpec
from pruning_core.spec.targets import KeepTarget
from pruning_core.tasks.base import TaskModel

KEEP = 0.8
# Of the folder for the 1B model's files and its paged blocks' new weights.
_SPARE_DISK = 8 * 2**30


def measure_1b(setting: Setting, emit: Emit) -> None:
    """Prune it with its weights in memory, then with its blocks read from a file one by one."""
    size = TINY if setting.dry else LLAMA_1B
    model = llama(size, setting, torch.bfloat16)
    folder = setting.folder / "llama"
    if shutil.disk_usage(setting.folder).free < _SPARE_DISK:
        raise OSError("less than 8 GB are free: the paged run would have no room")
    model.save_pretrained(folder)
    _write_tokenizer(folder, size)
    resident = as_task(model.float(), folder)
    _prune("resident", resident, size, emit, setting)
    del model, resident
    forget_peak(torch.device(setting.device))
    paged = load_task_model(folder, "text-generation", torch.device(setting.device), pages=setting.folder)
    _prune("paged", paged, size, emit, setting)


def measure_7b(setting: Setting, emit: Emit) -> None:
    """Prune it with its weights in memory."""
    size = TINY if setting.dry else LLAMA_7B
    model = as_task(llama(size, setting, torch.bfloat16).float(), setting.folder)
    _prune("resident", model, size, emit, setting)


def _prune(name: str, model: TaskModel, size: Size, emit: Emit, setting: Setting) -> None:
    """Prune a model by the defaults, with a row for every stage as it ends."""
    device = model.device if model.pages is None else torch.device(setting.device)
    evidence, paged = evidence_of(model, size), model.pages is not None
    tokens = evidence.calibration.tokens
    if not paged:
        floor(model, evidence)
        emit(f"{name}: forward + backward, {tokens} tokens", seconds=floor(model, evidence))
    forget_peak(device)
    ctx = Context(model, evidence, StageClock(lambda _progress: None), 0)
    method = FisherCGMethod(FisherCG())
    found: list[Any] = []
    taken = clocked(device, lambda: found.append(method.prepare(ctx)))
    emit(f"{name}: score", seconds=taken, peak_gb=peak_gb(device))
    budget = budget_for(
        KeepTarget(metric="macs", keep=KEEP), ctx.groups, total_params=model.parameter_count(), length=float(size.length)
    )
    mask = method.plan(found[0], budget, ctx)
    forget_peak(device)
    student = clone(model.model)
    reports: list[Any] = []
    taken = clocked(
        device,
        lambda: reports.extend(
            prune_and_recover_(adapt(student), mask, evidence, RecoverySpec(), on_sublayer=lambda _done: None)
        ),
    )
    statuses = [report.status for report in reports]
    emit(
        f"{name}: recover",
        seconds=taken,
        peak_gb=peak_gb(device),
        converged=statuses.count("converged"),
        rejected=statuses.count("rejected"),
        of=len(statuses),
    )
    if not paged:
        _speed(name, model.model, student, size, emit, setting)


def _speed(name: str, dense: Any, pruned: Any, size: Size, emit: Emit, setting: Setting) -> None:
    """Time both in bfloat16, in turns; their weights are converted in place."""
    models = [own.bfloat16() for own in (dense, pruned)]
    device = torch.device(setting.device)
    for batch, length in ((1, 1), (size.batch, size.length)):
        ids = torch.randint(5, size.words, (batch, length), device=device)
        figures = beside(models, ids, max(2, setting.repeats // 2))
        emit(f"{name}: {KEEP:g} of the MACs, bfloat16, {batch} x {length}", **figures)


def _write_tokenizer(folder: Path, size: Size) -> None:
    """Write a tokenizer with a word for every row of the embeddings: loading asks for one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size.words)}, unk_token="w4"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="w4", pad_token="w0", model_input_names=["input_ids", "attention_mask"]
    ).save_pretrained(folder)
