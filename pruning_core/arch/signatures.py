"""Where the parts of a Transformer block stand, as relative paths of modules. Torch-free.

Structure is found by shape and position, not by model name: any module whose children answer to one of these signatures
is a block. The same paths are matched against module trees (`arch.encoder`) and against the tensor names in a safetensors
header (`inputs`), so what is accepted at submit is what the worker can prune.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockSignature:
    """Relative module paths of one post-norm encoder block."""

    family: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    ffn_input: str
    activation: str
    ffn_output: str
    ffn_norm: str


SIGNATURES = (
    # BERT, RoBERTa, ELECTRA, XLM-R, CamemBERT, MiniLM and others that share BERT's module tree.
    BlockSignature(
        family="bert",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        ffn_input="intermediate.dense",
        activation="intermediate.intermediate_act_fn",
        ffn_output="output.dense",
        ffn_norm="output.LayerNorm",
    ),
    BlockSignature(
        family="distilbert",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        ffn_input="ffn.lin1",
        activation="ffn.activation",
        ffn_output="ffn.lin2",
        ffn_norm="output_layer_norm",
    ),
)


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Widths of one block as they stand in a checkpoint: attention ``k = heads * head_size``, FFN ``n``, hidden ``d``."""

    hidden: int
    attention_width: int
    ffn_width: int


@dataclass(frozen=True, slots=True)
class CheckpointStructure:
    """The blocks found in a checkpoint's tensor names, first to last."""

    signature: BlockSignature
    blocks: tuple[BlockShape, ...]


def find_structure(shapes: Mapping[str, tuple[int, ...]]) -> CheckpointStructure | None:
    """Find the blocks of a checkpoint from its tensor names and shapes (weights are output-major, as PyTorch stores).

    Returns:
        The structure, or None where no signature fits every block.
    """
    for signature in SIGNATURES:
        pattern = re.compile(rf"(?P<prefix>.*\.(?P<index>\d+))\.{re.escape(signature.query)}\.weight")
        prefixes = {int(m["index"]): m["prefix"] for m in map(pattern.fullmatch, shapes) if m}
        if not prefixes or sorted(prefixes) != list(range(len(prefixes))):
            continue
        blocks: list[BlockShape] = []
        for index in range(len(prefixes)):
            block = _block_shape(shapes, prefixes[index], signature)
            if block is None:
                break
            blocks.append(block)
        else:
            return CheckpointStructure(signature, tuple(blocks))
    return None


def _block_shape(shapes: Mapping[str, tuple[int, ...]], prefix: str, signature: BlockSignature) -> BlockShape | None:
    def shape(part: str) -> tuple[int, ...] | None:
        return shapes.get(f"{prefix}.{part}.weight")

    query, output, ffn_input, ffn_output = (
        shape(part) for part in (signature.query, signature.attention_output, signature.ffn_input, signature.ffn_output)
    )
    if query is None or output is None or ffn_input is None or ffn_output is None:
        return None
    if shape(signature.key) != query or shape(signature.value) != query:
        return None
    if output != query[::-1] or ffn_output != ffn_input[::-1] or ffn_input[1] != query[1]:
        return None
    return BlockShape(hidden=query[1], attention_width=query[0], ffn_width=ffn_input[0])
