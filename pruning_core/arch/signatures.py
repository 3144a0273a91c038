"""Block signatures: where the parts of a Transformer block stand, as relative module paths. Torch-free.

Structure is found by shape and position, not by model name: any module whose children match one of the signatures in
`arch.families` is a block. The same paths are matched against module trees (`arch.adapter`) and against the tensor names of a
checkpoint (`arch.structure`), so submit accepts exactly what the worker can prune.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

UnitKind = Literal["head", "neuron", "expert"]


@dataclass(frozen=True, slots=True)
class UnitRows:
    """A matrix whose output rows belong to units.

    Attributes:
        path: Path of the linear layer.
        pieces: Number of matrices that it fuses, one after the other: 3 for query, key and value, 2 for gate and up.
        grouped: Whether it is a key or value projection. Where several query heads share a key and a value, a unit has the rows
            of one head in it.
        fused: How it fuses queries with grouped keys and values: ``in turn``, all queries before all keys before all values, or
            ``by unit``, the queries of a unit before its key and its value.
    """

    path: str
    pieces: int = 1
    grouped: bool = False
    fused: Literal["in turn", "by unit"] | None = None

    def of_unit(self, size: int, width: int) -> tuple[int, ...]:
        """Count the rows of one unit in each of the fused matrices, which lie one after the other.

        Args:
            size: Width of a key or a value.
            width: Width of a unit: of all queries that share a key and a value.
        """
        if self.fused == "by unit":
            return (width + 2 * size,)
        if self.fused == "in turn":
            return (width, size, size)
        return (size if self.grouped else width,) * self.pieces


@dataclass(frozen=True, slots=True)
class StoredExperts:
    """How the experts of a mixture are stored in the files of a checkpoint, as relative paths without ``.weight``.

    Attributes:
        router: The router.
        inputs: Matrices that read the hidden states. ``{}`` stands for the number of an expert that has a matrix of its own; a
            path without it is one tensor of all experts.
        output: The matrix whose outputs are weighed and summed up, likewise.
        transposed: Whether tensors of all experts are (experts, inputs, outputs).
        bare: Whether tensors of all experts are stored under their path itself, without ``.weight``.
    """

    router: str
    inputs: tuple[str, ...]
    output: str
    transposed: bool = False
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Mixture:
    """Where the parts of a mixture of experts stand, as relative module paths.

    Attributes:
        router: The module that weighs the experts: ``router(hidden)`` returns logits, weights and numbers of the chosen ones.
        experts: The module that has the matrices of all experts, ``gate_up_proj`` and ``down_proj``, each in one tensor.
        stored: The forms that checkpoints have.
        shared: An FFN that every token passes through beside its experts, and the gate of what it adds; None: there is none.
    """

    router: str
    experts: str
    stored: tuple[StoredExperts, ...]
    shared: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SublayerSignature:
    """One sublayer: ``h' = after(h + inner(output(features(before(h)))))``. A norm whose path is None is the identity.

    In a block whose sublayers stand side by side, ``before`` reads what the block was given in the place of ``h``.

    Attributes:
        kind: Attention heads, FFN neurons, or experts.
        inputs: Matrices that read the hidden states.
        output: Path of the output projection, whose input columns belong to units.
        before: Path of the norm of what the sublayer reads.
        inner: Path of the norm of what the sublayer adds.
        after: Path of the norm of the residual sum.
        module: Path of the attention module, which knows the head size. For an FFN whose features are more than an activation,
            path of the module that ends in the output projection.
        activation: Path of the activation of an FFN without a gate.
        followers: Optional matrices whose rows belong to units and which read something else than the hidden states.
        vectors: Names of parameters of the attention module itself that have a number for each column of its units, such as
            biases apart from their matrices.
        positions: Whether the attention has a position bias for every head.
        config_heads: Whether the attention's code reads the number of its heads from the model's configuration.
        crosses: For cross-attention, pairs of a parameter of its module and the block's parameter that is passed to it. The
            grouped inputs read the encoder's output.
        mixture: The parts of a mixture of experts, whose ``inputs`` are empty and whose output projection is made of them
            (`arch.experts`).
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
    vectors: tuple[str, ...] = ()
    positions: bool = False
    config_heads: bool = False
    crosses: tuple[tuple[str, str], ...] = ()
    mixture: Mixture | None = None

    @property
    def norms(self) -> tuple[str, ...]:
        """Paths of the norms that the sublayer has."""
        return tuple(path for path in (self.before, self.inner, self.after) if path is not None)

    def paths(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the path of each part, for people to read."""
        yield "inputs", ", ".join(rows.path for rows in self.inputs) if self.mixture is None else self.mixture.router
        yield "output", self.output
        for name in ("before", "inner", "after"):
            path = getattr(self, name)
            if path is not None:
                yield f"norm {name}", path


@dataclass(frozen=True, slots=True)
class BlockSignature:
    """Relative module paths of one block.

    Attributes:
        family: Name of the layout.
        sublayers: The sublayers in the order in which they run.
        plain: Whether the attention is a softmax over all real tokens and nothing else. Then it can be computed without the
            model's own code, and without a mask on batches that have no padding.
        transposed: Whether the matrices are stored input-major (``Conv1D``).
        returns: Length of the tuple that the block returns; 0 where it returns the hidden states alone.
        least_neurons: Number of neurons that an FFN must keep for the model's own code to run.
        stored: Paths in the files of a checkpoint, by module path, where the two differ.
        marks: Paths of modules that tell the layout from another one with the same matrices.
        parallel: Whether the sublayers stand side by side: each reads what the block is given, and the block adds up what they
            add.
        shared: Whether one block runs for all layers, as often as the configuration has layers.
        float32: Whether the model's own code fails where products alone are in bfloat16.
        flag: An attribute of the block, as a path, and its required value. Modules alone do not always show where the norms
            stand, or what a sublayer reads.
        decoder: Signature of the decoder blocks that follow and read this encoder's output.
        joint: Path of a module that may stand behind the first block, on the module that holds the blocks. It reads what that
            block was given, what it gives, and the mask of real tokens.
        memory: Path of the norm that ends the encoder, on the module that holds its blocks. It tells pre-norm stacks from
            others.
        lacks_attention: Whether a layer may lack its attention and the norm before it, and keep its FFN. The attention's module
            returns what is added, and its weights.
        whole_attention: Whether attentions keep all their heads, as those of mixtures of experts do.
        causal: Whether a token sees only the tokens before it, so that a classifier reads the last real token.
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
    parallel: bool = False
    shared: bool = False
    float32: bool = False
    lacks_attention: bool = False
    whole_attention: bool = False
    decoder: BlockSignature | None = None
    memory: str | None = None
    joint: str | None = None

    def stored_path(self, path: str) -> str:
        """Return the path that a module has in a checkpoint's files."""
        return self.stored.get(path, path)


def qkv(*paths: str) -> tuple[UnitRows, ...]:
    """Describe the query, key and value projections as three matrices."""
    query, key, value = paths
    return UnitRows(query), UnitRows(key, grouped=True), UnitRows(value, grouped=True)
