"""One budget of bytes for widths and storage types: how many units each sublayer keeps, and the type of each matrix.

Both lose something, and both losses are shares of the model's Fisher information: of the units that go (`stats.fisher`) and of
the rounding (`stats.rounding`). The rounding of a matrix that keeps ``n`` of ``N`` units costs ``n / N`` of that of the whole.
The sum of losses is smallest within the budget by a multiple-choice knapsack (`search.options`): an item is a sublayer with its
matrices, or a matrix beside the sublayers; an option is a count of units and a type for each matrix.

Within a sublayer, types are taken from a chain: all matrices start in the smallest type, and the refinement that saves most
loss for a byte comes next. That is the lower convex hull of loss over bytes, at most one refinement away from any other choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.errors import TargetUnreachable
from pruning_core.search.align import BLOCK
from pruning_core.search.importance import check_importance, most_important
from pruning_core.search.options import choose_options
from pruning_core.shapes import Float
from pruning_core.spec.sizes import size_text
from pruning_core.spec.storage import STORAGE_TYPES, StorageName

# Most counts that a sublayer is offered; more differ by less than the statistics tell apart.
_COUNTS = 64

Types = Mapping[str, StorageName]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix whose storage type is chosen.

    Attributes:
        path: Module path.
        outputs: Rows in the dense model.
        inputs: Columns in the dense model.
        group: Index of the sublayer whose units it holds; None: of no sublayer.
        cut: Whether units are its rows or its columns; nothing where it has none.
        losses: Loss by the rounding of the whole matrix, by type, in shares of the model's Fisher information.
    """

    path: str
    outputs: int
    inputs: int
    group: int | None
    cut: Literal["rows", "columns"] | None
    losses: Mapping[StorageName, float]

    def nbytes(self, kind: StorageName, share: float, float_bytes: int) -> int:
        """Count its bytes in a type once only a share of the units is left."""
        outputs = round(self.outputs * share) if self.cut == "rows" else self.outputs
        inputs = round(self.inputs * share) if self.cut == "columns" else self.inputs
        return STORAGE_TYPES[kind].nbytes(outputs, inputs, float_bytes)


@dataclass(frozen=True, slots=True)
class Stock:
    """What a checkpoint stores.

    Attributes:
        matrices: The matrices whose types are chosen.
        fixed: Bytes of everything else that no unit has.
        unit_bytes: For each group, bytes of a unit beside its matrices, such as biases.
        float_bytes: Bytes of a floating-point number.
    """

    matrices: Sequence[Matrix]
    fixed: int
    unit_bytes: Sequence[int]
    float_bytes: int = 2


@dataclass(frozen=True, slots=True)
class Allocation:
    """What is stored: the units that stay, and the type of each matrix.

    Attributes:
        mask: The units.
        types: Types by module path.
        nbytes: Bytes of all of it.
        loss: The sum of losses, in shares of the model's Fisher information.
    """

    mask: Mask
    types: Types
    nbytes: int
    loss: float


@dataclass(frozen=True, slots=True)
class _Option:
    count: int
    types: Types
    nbytes: int
    loss: float


def allocate(
    importance: Sequence[Float[Tensor, " units"]],
    groups: Sequence[UnitGroup],
    stock: Stock,
    limit: int,
    types: Sequence[StorageName],
    *,
    cuts: bool = True,
) -> Allocation:
    """Find widths and types of least loss within a limit of bytes.

    Args:
        importance: Importance of every unit, >= 0, one tensor for each group, in shares of the model's Fisher information.
        groups: The unit groups.
        stock: What the checkpoint stores.
        limit: Most bytes.
        types: The types to choose from.
        cuts: Whether units may go.

    Raises:
        NotFinite: A unit has no finite importance.
        TargetUnreachable: Not even the smallest widths and types fit.
    """
    check_importance(importance, groups)
    items = [
        _pareto(_of_group(values, index, group, stock, types, cuts=cuts))
        for index, (values, group) in enumerate(zip(importance, groups, strict=True))
    ]
    beside = [own for own in stock.matrices if own.group is None]
    items += [[_Option(0, *_sums([own], chosen, 1.0, stock)) for chosen in _chain([own], types, stock)] for own in beside]
    least = stock.fixed + sum(min(option.nbytes for option in item) for item in items)
    if least > limit:
        named = ", ".join(types)
        raise TargetUnreachable(
            f"at least {size_text(least)} ({least:,} bytes) must be stored of this model with types {named}, and "
            f"{size_text(limit)} may be: allow more bytes{'' if 'int4' in types else ', or smaller types'}",
            param="target.at_most",
        )
    if limit == stock.fixed:  # nothing is to be chosen, and nothing costs anything
        found = [0] * len(items)
    else:
        found = choose_options([[(own.nbytes, -own.loss) for own in item] for item in items], limit - stock.fixed)
    chosen = [item[option] for item, option in zip(items, found, strict=True)]
    kept = [most_important(values, own.count) for values, own in zip(importance, chosen[: len(groups)], strict=True)]
    return Allocation(
        Mask(tuple(kept)),
        {path: kind for own in chosen for path, kind in own.types.items()},
        stock.fixed + sum(own.nbytes for own in chosen),
        sum(own.loss for own in chosen),
    )


def counts_of(group: UnitGroup) -> list[int]:
    """Return the counts that a sublayer may keep: all of a small one, else evenly spaced multiples of `BLOCK`."""
    least = min(group.floor, group.size)
    if group.size <= _COUNTS:
        return list(range(least, group.size + 1))
    step = -(-group.size // (_COUNTS * BLOCK)) * BLOCK
    return sorted({least, group.size, *(count for count in range(step, group.size, step) if count >= least)})


def _of_group(
    values: Float[Tensor, " units"], index: int, group: UnitGroup, stock: Stock, types: Sequence[StorageName], *, cuts: bool
) -> list[_Option]:
    """List the options of a sublayer: every count, with every link of its chain of types."""
    own = [matrix for matrix in stock.matrices if matrix.group == index]
    ascending = values.double().cpu().sort().values
    lost = torch.cat([torch.zeros(1, dtype=torch.float64), ascending.cumsum(0)])
    chain = _chain(own, types, stock)
    options: list[_Option] = []
    for count in counts_of(group) if cuts else [group.size]:
        for chosen in chain:
            named, nbytes, loss = _sums(own, chosen, count / group.size if group.size else 1.0, stock)
            gone = float(lost[group.size - count])
            options.append(_Option(count, named, nbytes + count * stock.unit_bytes[index], loss + gone))
    return options


def _chain(matrices: Sequence[Matrix], types: Sequence[StorageName], stock: Stock) -> list[tuple[StorageName, ...]]:
    """Return choices of types, from the smallest on, each finer than the one before where it saves most loss for a byte."""
    steps: list[tuple[float, int, StorageName]] = []
    first: list[StorageName] = []
    for place, matrix in enumerate(matrices):
        hull = _hull([(matrix.nbytes(kind, 1.0, stock.float_bytes), matrix.losses[kind], kind) for kind in types])
        first.append(hull[0][2])
        for (fewer, worse, _), (more, better, kind) in pairwise(hull):
            steps.append(((worse - better) / (more - fewer), place, kind))
    found = [tuple(first)]
    for _, place, kind in sorted(steps, key=lambda step: -step[0]):  # stable, and a hull's slopes fall
        found.append((*found[-1][:place], kind, *found[-1][place + 1 :]))
    return found


def _hull(points: Sequence[tuple[int, float, StorageName]]) -> list[tuple[int, float, StorageName]]:
    """Return the lower convex hull of loss over bytes, with losses that fall."""
    found: list[tuple[int, float, StorageName]] = []
    for point in sorted(points, key=lambda own: (own[0], own[1])):
        if found and point[1] >= found[-1][1]:
            continue
        while len(found) > 1 and _slope(found[-2], found[-1]) <= _slope(found[-2], point):
            found.pop()
        found.append(point)
    return found


def _slope(left: tuple[int, float, StorageName], right: tuple[int, float, StorageName]) -> float:
    """Return the loss that is saved for a byte."""
    return (left[1] - right[1]) / (right[0] - left[0])


def _sums(matrices: Sequence[Matrix], chosen: Sequence[StorageName], share: float, stock: Stock) -> tuple[Types, int, float]:
    """Return the types by path, and the bytes and losses of the matrices that keep a share of the units."""
    pairs = list(zip(matrices, chosen, strict=True))
    return (
        {matrix.path: kind for matrix, kind in pairs},
        sum(matrix.nbytes(kind, share, stock.float_bytes) for matrix, kind in pairs),
        sum(matrix.losses[kind] for matrix, kind in pairs) * share,
    )


def _pareto(options: Sequence[_Option]) -> list[_Option]:
    """Leave out options that cost no fewer bytes than another, and lose no less."""
    found: list[_Option] = []
    for option in sorted(options, key=lambda own: (own.nbytes, own.loss)):
        if not found or option.loss < found[-1].loss:
            found.append(option)
    return found
