"""Latency tables of engines: seconds of small stacks of layers, measured in an engine, and the latency model made of them.

An engine is a closed program: nobody can time one of its sublayers alone. So whole models are timed, of the dense model's own
width, heads and vocabulary, but of few layers: one shape at two depths, which tells the time of a layer from all the rest; and
other shapes at the larger depth. A layer's cost is its attention's by the number of groups and its FFN's by the width, added
up. Between measured counts it is linear, and noise never makes more units cheaper than fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import isotonic_regression

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import CurveBudget
from pruning_core.engines.limits import Limits
from pruning_core.errors import TargetUnreachable, UnsupportedArchitecture
from pruning_core.measure.latency_table import Curve, LatencyModel
from pruning_core.spec.artifacts import Layout
from pruning_core.spec.targets import LatencyTarget, Phase, in_engine

# Numbers of measured counts: of neurons, and of groups of heads where an engine takes fewer.
_NEURON_RUNGS, _HEAD_RUNGS = 5, 3
# Without limits of an engine, numbers of neurons that are offered are multiples of this.
_STEP = 16
# Depths, the larger first choice first, as long as the layers take no more than so many bytes in float32.
_DEPTHS, _LAYER_BYTES = (8, 6, 4, 3), 2**31
# A speed-up below this is not told from the noise of an engine's clock.
LEAST_SPEEDUP = 1.05
# A table is not believed whose times contradict each other by more than this share: the machine was busy with something else.
UNSTEADY = 0.15
# The search rounds costs up to bins. With this factor, the smallest budget still admits the smallest model.
_ALL_BINS = 1.01
# The aim lies below the budget by this share of the tolerance, as for latencies on the job's device.
_AIM = 0.4


@dataclass(frozen=True, slots=True)
class Stack:
    """A model to be timed: so many layers, all of one shape. Without heads, all layers but the first lack their attention."""

    depth: int
    heads: int
    neurons: int


class StackTime(BaseModel):
    """Seconds of a stack, the smallest of several turns, by what was timed: ``prefill_s`` and ``decode_s``, or ``pass_s``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    depth: int
    heads: int
    neurons: int
    seconds: dict[str, float]


class EngineTable(BaseModel):
    """What was measured in an engine.

    Attributes:
        engine: Its name.
        version: Its version.
        dtype: The type that it computed in.
        threads: Threads that it was given.
        times: Of the shallow stack, of the deep one of the same shape, and of the other shapes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    version: str
    dtype: str
    threads: int
    times: tuple[StackTime, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Shapes that the layers of a model may get.

    Attributes:
        layers: Number of layers.
        heads: Counts of heads, or groups of them, that are offered, ascending.
        neurons: Counts of neurons that are offered, ascending.
        stock: Whether whole layers may go, and all others are alike.
        absent_from: The first layer that may lack its attention; None where every layer has one.
    """

    layers: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    stock: bool
    absent_from: int | None = None

    def stacks(self, layer_bytes: int) -> tuple[Stack, ...]:
        """List what is to be timed.

        Args:
            layer_bytes: What a dense layer takes in float32.
        """
        fitting = [own for own in _DEPTHS if own * layer_bytes <= _LAYER_BYTES]
        deep = min(self.layers, fitting[0] if fitting else _DEPTHS[-1])
        heads, neurons = self.heads[-1], self.neurons[-1]
        found = [Stack(min(2, max(1, deep - 1)), heads, neurons), Stack(deep, heads, neurons)]
        found += [Stack(deep, heads, own) for own in _rungs(self.neurons, _NEURON_RUNGS)]
        found += [Stack(deep, own, neurons) for own in _rungs(self.heads, _HEAD_RUNGS)]
        if self.absent_from is not None and deep > 1:
            found.append(Stack(deep, 0, neurons))
        return tuple(dict.fromkeys(found))


def shapes_of(groups: Sequence[UnitGroup], layout: Layout, limits: Limits | None) -> Shapes:
    """Return the shapes that may be asked for of a model.

    Raises:
        UnsupportedArchitecture: Its layers are not an attention and an FFN each, all of one shape.
    """
    heads, neurons = groups[::2], groups[1::2]
    alike = all((own.kind, own.size) == ("head", heads[0].size) for own in heads)
    if not alike or not neurons or any((own.kind, own.size) != ("neuron", neurons[0].size) for own in neurons):
        raise UnsupportedArchitecture(
            "a latency in an engine is planned for models whose layers are alike, and those of this one differ; ask for macs, "
            "or leave the target's engine out",
            param="target.engine",
        )
    head, neuron = heads[0], neurons[0]
    if limits is not None:
        present = tuple(count for count in limits.counts(head) if count)
        return Shapes(len(heads), present, limits.counts(neuron), stock=False, absent_from=limits.absent_from)
    stock = layout == "stock"
    least = max(1, neuron.floor) if stock else neuron.floor
    widths = tuple(sorted({least, neuron.size, *range(-(-least // _STEP) * _STEP, neuron.size, _STEP)}))
    return Shapes(len(heads), (head.size,) if stock else tuple(range(head.floor, head.size + 1)), widths, stock)


def _rungs(counts: Sequence[int], most: int) -> list[int]:
    """Choose some of the offered counts, the first and the last among them."""
    return [counts[round(place)] for place in np.linspace(0, len(counts) - 1, min(most, len(counts)))]


def measured_as(phase: Phase | None) -> str:
    """Return the name of a phase's seconds."""
    return f"{phase or 'pass'}_s"


def model_from(table: EngineTable, shapes: Shapes, phase: Phase | None) -> LatencyModel:
    """Make the latency model of a phase from an engine's table, in milliseconds."""
    times = {Stack(own.depth, own.heads, own.neurons): 1e3 * own.seconds[measured_as(phase)] for own in table.times}
    deep = max(own.depth for own in times)
    whole = Stack(deep, shapes.heads[-1], shapes.neurons[-1])
    shallow = next((own for own in times if own.depth < deep), None)
    outside = 0.0
    if shallow is not None:
        a_layer = max(0.0, (times[whole] - times[shallow]) / (deep - shallow.depth))
        outside = max(0.0, times[shallow] - shallow.depth * a_layer)
    layers = {own: max(0.0, (spent - outside) / deep) for own, spent in times.items() if own.depth == deep and own.heads}
    bare = times.get(Stack(deep, 0, whole.neurons))
    if bare is not None:  # its first layer is whole
        layers[Stack(deep, 0, whole.neurons)] = max(0.0, (bare - outside - layers[whole]) / (deep - 1))
    ffn = _smooth({own.neurons: cost for own, cost in layers.items() if own.heads == whole.heads}, shapes.neurons)
    offered = shapes.heads if bare is None else (0, *shapes.heads)
    attention = _smooth({own.heads: cost for own, cost in layers.items() if own.neurons == whole.neurons}, offered)
    # Only sums of the two are known; what no width saves counts as the attention's.
    least, most = ffn[0][1], attention[-1][1]
    of_attention = tuple((count, max(0.0, least - (most - cost))) for count, cost in attention)
    of_ffn = tuple((count, cost - least) for count, cost in ffn)
    curves: list[Curve] = []
    for layer in range(shapes.layers):
        may_lack = shapes.absent_from is not None and layer >= shapes.absent_from
        curves += [of_attention if may_lack else tuple(own for own in of_attention if own[0]), of_ffn]
    return LatencyModel(tuple(curves), outside, outside + shapes.layers * ffn[-1][1])


def unsteadiness(table: EngineTable, shapes: Shapes, phase: Phase | None) -> float:
    """Return the share by which the times of a table contradict each other: those of wider or deeper stacks are smaller."""
    times = {Stack(own.depth, own.heads, own.neurons): own.seconds[measured_as(phase)] for own in table.times}
    deep = max(own.depth for own in times)
    heads, neurons = shapes.heads[-1], shapes.neurons[-1]
    ascending = (
        sorted((own for own in times if own.depth == deep and own.heads == heads), key=lambda own: own.neurons),
        sorted((own for own in times if own.depth == deep and own.neurons == neurons), key=lambda own: own.heads),
        sorted((own for own in times if (own.heads, own.neurons) == (heads, neurons)), key=lambda own: own.depth),
    )
    worst = 0.0
    for stacks in ascending:
        measured = np.array([times[own] for own in stacks])
        fitted = isotonic_regression(measured).x
        worst = max(worst, float(np.abs(fitted / measured - 1).max()))
    return worst


def _smooth(measured: Mapping[int, float], offered: Sequence[int]) -> Curve:
    """Return a cost of every offered count: the monotone fit to what was measured, and lines between."""
    counts = sorted(measured)
    fitted = isotonic_regression([measured[count] for count in counts]).x
    return tuple(zip(offered, np.interp(offered, counts, fitted).tolist(), strict=True))


def predicted_share(model: LatencyModel, kept: Sequence[int]) -> float:
    """Predict the share of the dense latency that so many units of each group take. A layer without any is gone."""
    spent = model.fixed
    for curve, count, layer in zip(model.curves, kept, _in_layers(kept), strict=True):
        if any(layer):
            spent += float(np.interp(count, [own for own, _ in curve], [cost for _, cost in curve]))
    return spent / model.total


def _in_layers(kept: Sequence[int]) -> list[tuple[int, int]]:
    """Return, for each group, the counts of its layer."""
    return [pair for pair in zip(kept[::2], kept[1::2], strict=True) for _group in range(2)]


def least_share(model: LatencyModel, shapes: Shapes) -> float:
    """Return the smallest share of the dense latency that any offered shape takes."""
    narrowest = [curve[0][1] for curve in model.curves]
    return (model.fixed + sum(narrowest[:2] if shapes.stock else narrowest)) / model.total


def budget_in_engine(model: LatencyModel, shapes: Shapes, target: LatencyTarget, phase: Phase | None) -> CurveBudget:
    """Return the budget of a target by an engine's table.

    Raises:
        TargetUnreachable: By the table, the model will not be faster there, or not as much as asked for.
    """
    assert target.engine is not None, "the target is one in an engine"
    least, where = least_share(model, shapes), in_engine(target.engine, phase)
    layers = "one layer" if shapes.stock else "every layer"
    narrowest = f"{layers} at the narrowest shape that it may have (FFN width {shapes.neurons[0]})"
    if least > 1 / LEAST_SPEEDUP:
        raise TargetUnreachable(
            f"the model will not be faster: by a table measured there, the latency {where} stays at {min(1.0, least):.2f} of "
            f"the dense one even with {narrowest}, and a speed-up below {LEAST_SPEEDUP:g} is noise; ask for another engine, or "
            "for macs or params if the size is what matters",
            param="target.engine",
        )
    if least > target.keep:
        raise TargetUnreachable(
            f"by a table measured there, about {least:.3f} of the latency {where} must be kept, with {narrowest}, and "
            f"{model.fixed / model.total:.2f} of it is spent outside of the layers; got keep {target.keep:g}",
            param="target.keep",
        )
    least_cost = least * model.total - model.fixed
    limit = max((target.keep - _AIM * target.tolerance) * model.total - model.fixed, least_cost * _ALL_BINS)
    return CurveBudget(model.curves, limit)
