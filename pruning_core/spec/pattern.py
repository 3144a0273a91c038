"""What a spec with a pattern asks for: its target follows from the pattern, misfits are refused. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from pydantic import Field, ValidationError

from pruning_core.methods.admm_pattern.options import AdmmPattern
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.grammar import UNSTRUCTURED
from pruning_core.spec.method import BlockLasso, ZeroMethod


class PatternTarget(Frozen):
    """Every block keeps what its pattern says: this share of the weights that whole blocks cover is zero.

    It follows from ``method.pattern`` and need not be given. Where a width is no multiple of the block's, what is left over
    stays dense and is counted in ``sparsity``, not here.
    """

    metric: Literal["pattern"] = "pattern"
    sparsity: float = Field(gt=0, lt=1)
    tolerance: float = Field(default=0.01, gt=0, le=0.1, description="Share of further weights that may be zero.")

    @property
    def requested(self) -> float:
        """The target in the metric's own unit: the sparsity of the blocks."""
        return self.sparsity


def expand_pattern(given: dict[str, Any]) -> dict[str, Any]:
    """Complete the fields of a spec whose method sets weights to zero.

    Of a pattern its target, and the stock layout, since no shape changes; of both methods the compressed form.
    """
    method = given.get("method")
    fields = {"name": method} if isinstance(method, str) else method
    name = cast("Mapping[str, Any]", fields).get("name") if isinstance(fields, Mapping) else None
    if name not in ("admm-pattern", "block-lasso"):
        return given
    artifacts = given.get("artifacts", {})
    completed = dict(given)
    if isinstance(artifacts, Mapping):
        layout = {"layout": "stock"} if name == "admm-pattern" else {}
        memory = given.get("memory")
        paged = isinstance(memory, Mapping) and cast("Mapping[str, Any]", memory).get("weights") == "paged"
        formats = {} if paged else {"formats": ("safetensors", "compressed")}
        completed["artifacts"] = {**layout, **formats, **cast("Mapping[str, Any]", artifacts)}
    if name != "admm-pattern":
        return completed
    try:
        block = AdmmPattern.model_validate(fields).block
    except ValidationError:
        return given  # the field's own validation says what is wrong
    if block is not None and given.get("target") is None and not given.get("targets"):
        completed["target"] = {"metric": "pattern", "sparsity": block.sparsity}
    return completed


def check_pattern_targets(method: ZeroMethod | None, metrics: Sequence[tuple[str, float]], recovery_kind: str) -> None:
    """Refuse targets that a method cannot have.

    Args:
        method: The pattern method; None for methods that remove units.
        metrics: Metric and requested value of each target.
        recovery_kind: How the spec repairs.

    Raises:
        ValueError: One does not fit.
    """
    if method is None:
        if any(metric == "pattern" for metric, _ in metrics):
            raise ValueError("a pattern target needs method admm-pattern; give a sparsity, or keep of macs, params or latency")
        return
    if recovery_kind == "masks":
        raise ValueError(f"{method.name} refits weights: recovery.kind must be weights or none")
    allowed = ("sparsity",) if isinstance(method, BlockLasso) else ("sparsity", "pattern")
    if any(metric not in allowed for metric, _ in metrics):
        raise ValueError(
            f"{method.name} {'zeroes weights' if isinstance(method, BlockLasso) else 'keeps every shape'}, so that only a "
            "sparsity can be asked for; macs, params and latency are targets of methods that remove heads and neurons"
        )
    if isinstance(method, BlockLasso):
        if not metrics:
            raise ValueError("block-lasso needs a sparsity, beside a quality_floor too")
        return
    block = method.block
    if block is None:
        if not metrics or any(metric == "pattern" for metric, _ in metrics):
            raise ValueError(f"pattern {UNSTRUCTURED} needs a sparsity: it does not follow from the pattern")
    elif [round(value, 6) for _, value in metrics] != [round(block.sparsity, 6)]:
        raise ValueError(
            f"pattern {method.pattern} means a sparsity of {block.sparsity:g}; leave the target out, or choose "
            f"another pattern or {UNSTRUCTURED}"
        )
