"""Latency of dense and pruned models, measured in turns so that both see the same state of the machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from pruning_core.arch.adapter import adapt
from pruning_core.arch.paging import held
from pruning_core.machine.finite import require_finite
from pruning_core.machine.timing import timed
from pruning_core.measure.ratio import reason_to_stop, speedup_interval
from pruning_core.report.latency import LatencyReport, Stopped
from pruning_core.spec.latency import LatencySpec
from pruning_core.tasks.base import TaskModel

# Milliseconds after which a measurement that may stop early is warm.
_WARM_MS = 1000.0


def warm_up(repeats: int) -> int:
    """Return the number of warm-up calls: three, or fewer if there are only a few repeats."""
    return max(1, min(3, repeats // 5))


def measure_latency(
    dense: TaskModel, pruned: TaskModel, spec: LatencySpec, generator: torch.Generator, on_repeat: Callable[[int], None]
) -> LatencyReport:
    """Measure the forward pass of two models after a warm-up; dense and pruned model take turns.

    The input is random tokens without padding, or random pixels: time depends on the shape, not on the values. Unless the spec
    wants all repeats, no further turn is measured once the ratio is known well enough (`reason_to_stop`).
    """
    length = dense.input_length(spec.length)
    inputs = dense.family.random_inputs(dense, spec.batch, length, generator)
    times: tuple[list[float], list[float]] = ([], [])

    def turn() -> tuple[float, float]:
        first, second = (timed(lambda model=model: model.outputs(inputs), model.device) for model in (dense, pruned))
        return first, second

    stopped: Stopped | None = None
    with torch.inference_mode(), limited_threads(spec.threads):
        _warm_up(turn, spec, on_repeat)
        while stopped is None:
            for kept, elapsed in zip(times, turn(), strict=True):
                kept.append(elapsed)
            on_repeat(len(times[0]))
            stopped = reason_to_stop(*times, spec)
        threads = torch.get_num_threads()
    shape = spec.but(length=length)
    return latency_report(*times, shape, threads=threads, device=str(dense.device), stopped=stopped)


def _warm_up(turn: Callable[[], tuple[float, float]], spec: LatencySpec, on_repeat: Callable[[int], None]) -> None:
    """Take turns that don't count. Where a turn takes long, one is enough for a measurement that may stop early."""
    spent = 0.0
    for _ in range(warm_up(spec.repeats)):
        if spec.narrow and spent >= _WARM_MS:
            break
        spent += sum(turn())
        on_repeat(0)


def measure_blocks(
    dense: TaskModel, pruned: TaskModel, spec: LatencySpec, generator: torch.Generator, on_repeat: Callable[[int], None]
) -> LatencyReport:
    """Measure the blocks of two models one by one, each with its weights in memory, and sum the times.

    This serves models that do not fit into memory, whose forward pass is mostly reading. Dense and pruned blocks take turns.
    Embeddings and head, which are the same in both models, are left out.
    """
    length = dense.input_length(spec.length)
    inputs = dense.family.random_inputs(dense, spec.batch, length, generator)
    models = adapt(dense.model), adapt(pruned.model)
    times = tuple([0.0] * spec.repeats for _ in models)
    most = max(len(adapter.blocks) for adapter in models)
    with torch.inference_mode(), limited_threads(spec.threads):
        traces = [adapter.trace(inputs) for adapter in models]
        for layer in range(most):
            there = [(a, t, kept) for a, t, kept in zip(models, traces, times, strict=True) if layer < len(a.blocks)]
            with held(*(adapter.blocks[layer] for adapter, _, _ in there)):
                for repeat in range(-warm_up(spec.repeats), spec.repeats):
                    for adapter, trace, kept in there:
                        elapsed = timed(partial(adapter.block_forward, layer, trace), dense.device)
                        if repeat >= 0:
                            kept[repeat] += elapsed * adapter.times
            on_repeat(round((layer + 1) / most * spec.repeats))
        threads = torch.get_num_threads()
    shape = spec.but(length=length)
    report = latency_report(times[0], times[1], shape, threads=threads, device=str(dense.device))
    return report.but(measured="blocks")


def latency_report(
    dense: Sequence[float],
    pruned: Sequence[float],
    spec: LatencySpec,
    *,
    threads: int,
    device: str,
    stopped: Stopped = "repeats",
) -> LatencyReport:
    """Report times that were measured in turns, in milliseconds: medians, speed-up, interquartile ranges and an interval.

    Args:
        dense: Times of the dense model.
        pruned: Times of the pruned model.
        spec: Spec whose batch and length were measured.
        threads: CPU threads of the measurement.
        device: Device of the measurement.
        stopped: Why there are not more turns.

    Raises:
        NotFinite: A time is NaN or infinite.
    """
    dense_ms, dense_iqr = median_and_iqr(dense)
    pruned_ms, pruned_iqr = median_and_iqr(pruned)
    for name, found in (("dense", dense_ms + dense_iqr), ("pruned", pruned_ms + pruned_iqr)):
        require_finite(found, f"the measured latency of the {name} model")
    interval, speedup = speedup_interval(dense, pruned), dense_ms / pruned_ms
    # On a busy machine the ratio of the medians can lie beside the ratios of most turns; wider is still as sure.
    interval = interval.but(low=min(interval.low, speedup), high=max(interval.high, speedup))
    return LatencyReport(
        dense=dense_ms,
        pruned=pruned_ms,
        speedup=speedup,
        dense_iqr=dense_iqr,
        pruned_iqr=pruned_iqr,
        batch=spec.batch,
        length=spec.length,
        repeats=len(dense),
        threads=threads,
        device=device,
        dtype="float32",  # as `TaskModel` promises, and as `fresh` loads
        interval=interval,
        stopped=stopped,
    )


@contextmanager
def limited_threads(count: int) -> Generator[None]:
    """Limit torch to a number of CPU threads while the context is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def median_and_iqr(milliseconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the interquartile range."""
    quartiles = torch.tensor(milliseconds, dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    return float(quartiles[1]), float(quartiles[2] - quartiles[0])
