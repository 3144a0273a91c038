"""Options of ``block-lasso``. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from pruning_core.errors import TargetUnreachable
from pruning_core.methods.zeroing_options import ZeroingMethod
from pruning_core.spec.grammar import MatrixShape, SegmentBlock, SegmentKind, default_block, parse_block
from pruning_core.spec.presets import Preset
from pruning_core.spec.refit import Damping, Iterations, RefitSteps, refit_steps
from pruning_core.spec.targets import Target
from pruning_core.spec.training import LassoTraining, Tier


def _block(text: str) -> str:
    parse_block(text, "row" if not text.endswith("x1") else "column")  # which side may be 1 depends on the segment
    return text


BlockText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=16), AfterValidator(_block)]


class BlockLasso(ZeroingMethod):
    """Block sparsity in every linear layer: rows or columns of blocks are zero (reweighted group Lasso, Li et al. 2020).

    One threshold for all matrices decides which segments are pruned. The kept weights are refitted on calibration data, as
    with ``admm-pattern``; ``recovery.kind`` none skips the refit.
    """

    planner: ClassVar[str] = "pruning_core.methods.block_lasso.plan:prepare"
    by_default: ClassVar[str] = (
        "Segments are priced on calibration data, ADMM on the Gram matrices chooses those that stay, and the kept weights are "
        "refitted: one shot, no group Lasso and no training. The paper's training is preset paper."
    )
    presets: ClassVar[Mapping[str, Preset]] = {
        "paper": Preset(
            "The training of Li et al. 2020: reweighted group Lasso from the dense weights for half of the steps, then "
            "fine-tuning of the segments that it left; labels alone, without the dense model's outputs.",
            {
                "method.tier": "trained",
                "method.training.start": "dense",
                "method.training.penalised": "all",
                "method.training.refit": False,
                "method.training.learning_rate": 3e-5,
                "method.training.distillation": 0.0,
                "method.training.hidden": 0.0,
                "method.training.dropout": True,
            },
        )
    }

    name: Literal["block-lasso"] = "block-lasso"
    block: BlockText | None = Field(
        default=None,
        description="PxQ such as 64x64: outputs and inputs of a block; null: 16, 32 or 64 a side, by each matrix's width.",
    )
    segment: SegmentKind = Field(
        default="row",
        description="Weights of a block that go together. row: the inputs of one output; column: the outputs of one input.",
    )
    tier: Tier = Field(
        default="one-shot",
        description="one-shot: no labels, no training; trained: fine-tuning on the task, or group Lasso from dense weights.",
    )
    selection: Literal["admm", "magnitude"] = Field(
        default="admm", description="What selects the segments: admm on calibration data, or magnitude, a baseline."
    )
    threshold: Literal["global", "uniform"] = Field(
        default="global",
        description="global: one threshold on the estimated loss for all matrices; uniform: the same sparsity for each.",
    )
    iterations: Iterations = 12
    refit_steps: RefitSteps = None
    damping: Damping = 0.01
    training: LassoTraining = Field(default=LassoTraining(), description="Options of tier trained.")

    @model_validator(mode="after")
    def _segments_are_groups(self) -> BlockLasso:
        if self.block is not None:
            parse_block(self.block, self.segment)
        return self

    def block_for(self, outputs: int, inputs: int) -> SegmentBlock:
        """Return the block for a matrix of this shape."""
        return default_block(outputs, inputs, self.segment) if self.block is None else parse_block(self.block, self.segment)

    @property
    def obs_group(self) -> None:
        """None: the optimal brain surgeon is no selection of this method."""
        return

    @property
    def steps(self) -> int:
        """Number of steps of the refit."""
        return refit_steps(self.refit_steps, self.selection)

    @property
    def title(self) -> str:
        """Name of the structure of the zeros in reports."""
        return f"{self.segment}s of {'blocks by width' if self.block is None else f'{self.block} blocks'}"

    @property
    def zeroing(self) -> BlockLasso:
        """These options."""
        return self

    def check_sparsity(self, targets: Sequence[Target]) -> None:
        """Refuse targets that are no sparsity, and a request without a target."""
        if any(target.metric != "sparsity" for target in targets):
            raise ValueError(
                f"{self.name} zeroes weights, so that only a "
                "sparsity can be asked for; macs, params and latency are targets of methods that remove heads and neurons"
            )
        if not targets:
            raise ValueError("block-lasso needs a sparsity, beside a quality_floor too")

    def check_matrices(self, matrices: Sequence[MatrixShape], sparsities: Sequence[float]) -> None:
        """Refuse blocks that are larger than a matrix. Matrices without weights pass."""
        del sparsities
        for matrix in matrices:
            block = self.block_for(matrix.outputs, matrix.inputs)
            if matrix.outputs * matrix.inputs and (block.outputs > matrix.outputs or block.inputs > matrix.inputs):
                raise TargetUnreachable(
                    f"blocks of {block.outputs}x{block.inputs} are larger than {matrix.name}, which has {matrix.outputs} "
                    f"outputs and {matrix.inputs} inputs; choose smaller ones, or leave method.block out",
                    param="method.block",
                )
