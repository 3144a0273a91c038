"""The options of the methods, shared by all commands that describe a job."""

from __future__ import annotations

from typing import Annotated

import typer

Method = Annotated[str | None, typer.Option(help="fisher-cg (default), admm-pattern, block-lasso, magnitude or random.")]
Pattern = Annotated[
    str | None,
    typer.Option(
        help="N:M such as 2:4, PxQ:K such as 4x4:8, or unstructured, which takes --sparsity. Implies --method admm-pattern."
    ),
]
Tier = Annotated[
    str | None,
    typer.Option(help="one-shot (default: no labels, no training) or trained. For admm-pattern and block-lasso."),
]
Block = Annotated[
    str | None,
    typer.Option(
        help="PxQ such as 64x64: outputs and inputs of a block, whose rows or columns become zero as a whole. Implies --method "
        "block-lasso."
    ),
]
Segment = Annotated[str | None, typer.Option(help="row (default) or column: the weights of a block that become zero together.")]
DropAttention = Annotated[
    bool | None,
    typer.Option(
        "--drop-attention",
        help="Layers behind the first may lose their attention as a whole, in what --engine takes. Large decoders lose little "
        "by it, small ones much. For fisher-cg.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(help="paper: the method as its paper has it, instead of our defaults. Options must not say otherwise."),
]
