"""What masks of other budgets would keep, counted without building anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from pruning_core.arch.masks import Mask
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import kept_macs
from pruning_core.errors import TargetUnreachable
from pruning_core.report.outlook import OutlookPoint, OutlookReport
from pruning_core.shapes import Float
from pruning_core.spec.targets import KeepTarget

# Shares of the multiply-accumulates, in per cent.
_SHARES = (97, 95, 92, *range(90, 9, -5), 7, 5, 3, 2)


def foresee(
    importance: Sequence[Float[Tensor, " units"]],
    groups: Sequence[UnitGroup],
    search: Callable[[KeepTarget], Mask],
    *,
    length: float,
    parameters: int,
    bytes_per_parameter: float,
) -> OutlookReport | None:
    """Search a mask for each of many budgets of multiply-accumulates, and count it.

    Args:
        importance: One tensor for each group, with one value >= 0 for each unit.
        groups: The unit groups of the dense model.
        search: Finds the mask of a target.
        length: Mean real sequence length of the task, in tokens.
        parameters: Number of parameters of the dense model.
        bytes_per_parameter: Of the weight files.

    Returns:
        The budgets that can be met; None where none can.
    """
    whole = kept_macs(groups, [group.size for group in groups], length)
    points: list[OutlookPoint] = []
    for share in _SHARES:
        try:
            mask = search(KeepTarget(metric="macs", keep=share / 100))
        except TargetUnreachable:
            break
        kept = mask.counts()
        stay = parameters - sum(group.params_per_unit * (group.size - count) for group, count in zip(groups, kept, strict=True))
        lost = sum(float(own[~there.to(own.device)].double().sum()) for own, there in zip(importance, mask.kept, strict=True))
        point = OutlookPoint(
            keep=kept_macs(groups, kept, length) / whole, parameters=stay, bytes=round(stay * bytes_per_parameter), cost=lost
        )
        points.append(point)
    return OutlookReport(points=tuple(points)) if points else None
