"""The check whether a pattern fits the matrices of a model, from their shapes alone. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_core.errors import TargetUnreachable
from pruning_core.spec.grammar import MatrixShape, parse_pattern


def check_coverage(pattern: str, matrices: Sequence[MatrixShape], sparsities: Sequence[float]) -> None:
    """Check that whole blocks fit into every matrix, and that they can reach the requested sparsities of all weights.

    Matrices without weights, which an earlier pruning may have left, pass.

    Args:
        pattern: The pattern's text.
        matrices: All prunable matrices.
        sparsities: The requested sparsities of all prunable weights.

    Raises:
        TargetUnreachable: The pattern is larger than a matrix, or leaves too many weights dense.
    """
    block = parse_pattern(pattern)
    if block is None:
        return
    covered = 0
    for matrix in matrices:
        outputs, inputs = block.covered(matrix.outputs, matrix.inputs)
        if not outputs * inputs and matrix.outputs * matrix.inputs:
            raise TargetUnreachable(
                f"pattern {pattern} is larger than {matrix.name}, which has {matrix.outputs} outputs and {matrix.inputs} "
                "inputs; choose a smaller one",
                param="method.pattern",
            )
        covered += outputs * inputs
    total = sum(matrix.outputs * matrix.inputs for matrix in matrices)
    reach = block.sparsity * covered / max(1, total)
    for sparsity in sparsities:
        if sparsity > reach + 1e-9:
            raise TargetUnreachable(
                f"blocks of {pattern} do not divide every matrix of this model: they make {reach:.4f} of the weights zero, got "
                f"sparsity {sparsity:g}; leave the target out, and what is left over stays dense",
                param="target.sparsity",
            )
