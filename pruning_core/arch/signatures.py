"""Where the parts of a Transformer block stand, as relative paths of modules. Torch-free.

Structure is found by shape and position, not by model name: any module whose children answer to one of the signatures of
`families` is a block. The same paths are matched against module trees (`arch.encoder`) and against the tensor names in a
safetensors header (`arch.stored`), so what is accepted at submit is what the worker can prune.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

UnitKind = Literal["head", "neuron"]


@dataclass(frozen=True, slots=True)
class UnitRows:
    """A matrix whose output rows belong to units.

    Attributes:
        path: Of the linear layer.
        pieces: Matrices that it fuses one after the other: 3 for query, key and value in one, 2 for gate and up.
        grouped: It has the rows of one head a unit where several query heads share a key and a value.
    """

    path: str
    pieces: int = 1
    grouped: bool = False


@dataclass(frozen=True, slots=True)
class SublayerSignature:
    """One sublayer, ``h' = after(h + inner(output(features(before(h)))))``, whose norms are the identity where they are None.

    Attributes:
        kind: Attention heads or FFN neurons.
        inputs: Matrices that read the hidden states.
        output: The output projection; its input columns belong to units.
        before: Norm of what the sublayer reads.
        inner: Norm of what it adds.
        after: Norm of the sum.
        module: The attention's own module, which knows the size of a head; of an FFN the one that ends in the output
            projection, where the features are more than an activation.
        activation: Of an FFN without a gate.
        followers: Matrices, where they are there, whose rows belong to units but which read something else.
        positions: The attention is given a position bias of every head.
        crosses: Of cross-attention, the parameters of its module, and which of the block's own each is given. Its grouped rows
            read the encoder's output.
    """

    kind: UnitKind
    inputs: tuple[UnitRows, ...]
    output: str
    before: str | None = None
    inner: str | None = None
    after: str | None = None
    module: str = ""
    activation: str | None = None
    followers: tuple[UnitRows, ...] = ()
    positions: bool = False
    crosses: tuple[tuple[str, str], ...] = ()

    @property
    def norms(self) -> tuple[str, ...]:
        """Paths of the norms that there are."""
        return tuple(path for path in (self.before, self.inner, self.after) if path is not None)

    def paths(self) -> Iterator[tuple[str, str]]:
        """Name the parts and where they stand, for people."""
        yield "inputs", ", ".join(rows.path for rows in self.inputs)
        yield "output", self.output
        for name in ("before", "inner", "after"):
            path = getattr(self, name)
            if path is not None:
                yield f"norm {name}", path


@dataclass(frozen=True, slots=True)
class BlockSignature:
    """Relative module paths of one block.

    Attributes:
        family: A name for it.
        halves: Its sublayers in the order in which they run.
        plain: The attention is softmax over all real tokens and nothing else, so that it can be computed without the model's
            own code, on whole batches without any mask.
        transposed: The matrices are stored input-major (``Conv1D``).
        returns: How many things the block returns in a tuple; 0 where it returns the hidden states alone.
        least_neurons: That an FFN must keep for the model's own code to run.
        stored: Where the files of a checkpoint have other paths than the modules.
        marks: Modules beside the matrices that set the layout apart from another with the same matrices.
        flag: Attribute of the block, and the value that it must have: where norms stand is not always seen from the modules.
        decoder: Layout of a decoder's blocks that follow, and read this encoder's output.
        memory: Norm that ends the encoder, on the module that holds its blocks; it sets pre-norm stacks apart from others.
        causal: Tokens see only what is before them, so that a classifier reads the last real one.
    """

    family: str
    sublayers: tuple[SublayerSignature, ...]
    plain: bool = False
    transposed: bool = False
    returns: int = 0
    least_neurons: int = 0
    stored: Mapping[str, str] = field(default_factory=dict[str, str])
    marks: tuple[str, ...] = ()
    flag: tuple[str, bool] | None = None
    causal: bool = False
    decoder: BlockSignature | None = None
    memory: str | None = None

    def stored_path(self, path: str) -> str:
        """Give the path that a checkpoint's files have for a module."""
        return self.stored.get(path, path)


def qkv(*paths: str) -> tuple[UnitRows, ...]:
    """Describe query, key and value as three matrices."""
    query, key, value = paths
    return UnitRows(query), UnitRows(key, grouped=True), UnitRows(value, grouped=True)
