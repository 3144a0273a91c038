"""The block structure of a checkpoint, found from its tensor names, tensor shapes and configuration. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pruning_core.arch.families import SIGNATURES
from pruning_core.arch.refused import reason_against, unsupported
from pruning_core.arch.signatures import BlockSignature, SublayerSignature, UnitRows
from pruning_core.arch.stored_experts import find_experts
from pruning_core.arch.unit_costs import RowCount, UnitGroup, unit_group
from pruning_core.errors import ModelUnreadable, UnsupportedArchitecture
from pruning_core.files.checkpoint import CheckpointFacts

# Names under which configurations state the same value.
HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads", "attention_heads")
DECODER_HEADS = ("decoder_attention_heads", *HEADS)
_CROSS_ATTENTION = (".encoder_attn.", ".crossattention.", ".EncDecAttention.")
_USUAL_LAYERS = 12  # of ALBERT
LAYERS = ("num_hidden_layers", "n_layers", "n_layer")
_HEAD_SIZES = ("head_dim", "d_kv")
EXPERTS = ("num_local_experts", "num_experts")
PASSED = ("num_experts_per_tok",)
# Path of an attention that a layer may lack: of any layer but the first.
ABSENT = re.compile(r"(?:\w+\.)*layers\.([1-9]\d{0,5})\.self_attn", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A matrix of a checkpoint.

    Attributes:
        path: Module path within the block.
        outputs: Number of outputs.
        inputs: Number of inputs.
        bias: Whether it has a bias.
        name: Path in the file, without ``.weight``.
    """

    path: str
    outputs: int
    inputs: int
    bias: bool
    name: str


@dataclass(frozen=True, slots=True)
class StoredSublayer:
    """One sublayer of a checkpoint.

    Attributes:
        layer: Index of the block among all blocks; a decoder's come after its encoder's.
        family: Signature of the block.
        signature: Signature of the sublayer.
        inputs: Matrices that read the hidden states.
        followers: Other matrices whose rows belong to units.
        output: The output projection.
        vectors: Number of vectors apart from matrices whose entries belong to units.
        experts: Number of experts of a mixture, whose matrices are counted together; 0 for other sublayers.
    """

    layer: int
    family: BlockSignature
    signature: SublayerSignature
    inputs: tuple[StoredMatrix, ...]
    followers: tuple[StoredMatrix, ...]
    output: StoredMatrix
    vectors: int = 0
    experts: int = 0

    @property
    def prunable(self) -> tuple[StoredMatrix, ...]:
        """The matrices that a sparsity pattern covers."""
        return (*self.inputs, self.output)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.output.outputs


@dataclass(frozen=True, slots=True)
class CheckpointStructure:
    """The blocks found in a checkpoint's tensor names, first to last."""

    signature: BlockSignature
    sublayers: tuple[StoredSublayer, ...]


def find_structure(shapes: Mapping[str, tuple[int, ...]], absent: Collection[int] = frozenset()) -> CheckpointStructure | None:
    """Find the blocks of a checkpoint from its tensor names and shapes.

    Args:
        shapes: Shape of each tensor, by its name.
        absent: Layers without an attention, by `absent_attentions`.

    Returns:
        The structure, or None where no signature fits every block.
    """
    crosses = any(mark in name for name in shapes for mark in _CROSS_ATTENTION)
    for signature in SIGNATURES:
        if crosses and signature.decoder is None:
            continue  # blocks with cross-attention are not those of an encoder or a decoder alone
        others: tuple[str, ...] = ()
        if signature.decoder is not None:
            others = _prefixes(shapes, signature.decoder.sublayers[1].output, signature)
        lacks = signature.lacks_attention and bool(absent)
        own = _prefixes(shapes, signature.sublayers[-1 if lacks else 0].output, signature, without=others)
        if not own or (signature.decoder is not None and not others):
            continue
        whole = [prefix for layer, prefix in enumerate(own) if not (lacks and layer in absent)]
        if not _has_norms(shapes, whole, signature) or (
            signature.decoder and not _has_norms(shapes, others, signature.decoder)
        ):
            continue
        places = [(prefix, signature) for prefix in own] + [(prefix, signature.decoder) for prefix in others]
        found_sublayers = [
            _stored_sublayer(shapes, prefix, layer, family, sublayer)
            for layer, (prefix, family) in enumerate(places)
            if family is not None
            for sublayer in family.sublayers
            if not (lacks and layer in absent and _lacks(shapes, prefix, family, sublayer))
        ]
        found = tuple(sublayer for sublayer in found_sublayers if sublayer is not None)
        if len(found) == len(found_sublayers):
            return CheckpointStructure(signature, found)
    return None


def _prefixes(
    shapes: Mapping[str, tuple[int, ...]], path: str, signature: BlockSignature, without: Collection[str] = ()
) -> tuple[str, ...]:
    """Find the prefix of each block's tensor names, first block to last, by one of its matrices.

    Returns:
        The prefixes; empty where block numbers are missing or occur twice.
    """
    pattern = re.compile(rf"(?P<prefix>(?:.*\.)?(?P<index>\d+))\.{re.escape(signature.stored_path(path))}\.weight")
    found = [m for m in map(pattern.fullmatch, shapes) if m and m["prefix"] not in without]
    prefixes = {int(m["index"]): m["prefix"] for m in found}
    whole = len(found) == len(prefixes) and sorted(prefixes) == list(range(len(prefixes)))
    return tuple(prefixes[index] for index in range(len(prefixes))) if whole else ()


def _has_norms(shapes: Mapping[str, tuple[int, ...]], prefixes: Sequence[str], signature: BlockSignature) -> bool:
    """Return whether the norms are where the signature has them. The same matrices with norms elsewhere are another model.

    The last block is checked, since the first may lack a norm (ModernBERT). Norms without weights (OLMo) are in no file.
    """
    own = [name for prefix in prefixes for name in shapes if name.startswith(f"{prefix}.")]
    if not any("norm" in name.lower() or ".ln" in name for name in own):
        return not signature.marks
    last = f"{prefixes[-1]}."
    wanted = [*signature.marks, *(signature.stored_path(path) for sublayer in signature.sublayers for path in sublayer.norms)]
    stack = prefixes[-1].rpartition(".")[0].rpartition(".")[0]
    ended = signature.memory is None or f"{stack}.{signature.memory}.weight".removeprefix(".") in shapes
    return ended and all(any(name.startswith(f"{last}{path}.") for name in own) for path in wanted)


def _lacks(shapes: Mapping[str, tuple[int, ...]], prefix: str, family: BlockSignature, sublayer: SublayerSignature) -> bool:
    """Return whether a block has no tensor of an attention."""
    places = tuple(f"{prefix}.{family.stored_path(path)}." for path in (sublayer.module, *sublayer.norms))
    return sublayer.kind == "head" and not any(name.startswith(places) for name in shapes)


def _stored_sublayer(
    shapes: Mapping[str, tuple[int, ...]], prefix: str, layer: int, signature: BlockSignature, sublayer: SublayerSignature
) -> StoredSublayer | None:
    if sublayer.mixture is not None:
        return _stored_mixture(shapes, prefix, layer, signature, sublayer)

    def matrix(path: str) -> StoredMatrix | None:
        stored = f"{prefix}.{signature.stored_path(path)}"
        shape = shapes.get(f"{stored}.weight")
        if shape is None or len(shape) != 2:
            return None
        outputs, inputs = shape[::-1] if signature.transposed else shape
        return StoredMatrix(path, outputs, inputs, f"{stored}.bias" in shapes, stored)

    inputs = [matrix(rows.path) for rows in sublayer.inputs]
    present = tuple(found for found in inputs if found is not None)
    followers = tuple(found for rows in sublayer.followers if (found := matrix(rows.path)) is not None)
    output = matrix(sublayer.output)
    if output is None or len(present) != len(inputs):
        return None
    if any(own.inputs != output.outputs for own in present) or _misfit(sublayer, present, output):
        return None
    vectors = [shapes.get(f"{prefix}.{signature.stored_path(sublayer.module)}.{name}") for name in sublayer.vectors]
    if any(shape != (output.inputs,) for shape in vectors):
        return None
    return StoredSublayer(layer, signature, sublayer, present, followers, output, len(vectors))


def _stored_mixture(
    shapes: Mapping[str, tuple[int, ...]], prefix: str, layer: int, signature: BlockSignature, sublayer: SublayerSignature
) -> StoredSublayer | None:
    """Describe the experts of a block as three matrices of all of them: their output projection is as wide as all together."""
    mixture = sublayer.mixture
    assert mixture is not None, "asked for mixtures alone"
    start = f"{prefix}."
    found = find_experts({name.removeprefix(start): own for name, own in shapes.items() if name.startswith(start)}, mixture)
    if found is None:
        return None
    experts, hidden = found.experts, found.hidden
    name, router = start + found.form.output, start + found.form.router
    return StoredSublayer(
        layer,
        signature,
        sublayer,
        inputs=(StoredMatrix(mixture.experts, experts * found.rows, hidden, found.biased, name),),
        followers=(StoredMatrix(mixture.router, experts, hidden, found.router_biased, router),),
        output=StoredMatrix(sublayer.output, hidden, experts * found.columns, bias=False, name=name),
        experts=experts,
    )


def _misfit(sublayer: SublayerSignature, inputs: tuple[StoredMatrix, ...], output: StoredMatrix) -> bool:
    """Return whether the output rows of the input matrices do not fit the columns of the output projection."""
    plain = [
        own.outputs != rows.pieces * output.inputs
        for rows, own in zip(sublayer.inputs, inputs, strict=True)
        if not rows.grouped and rows.fused is None
    ]
    grouped = [own.outputs for rows, own in zip(sublayer.inputs, inputs, strict=True) if rows.grouped]
    for rows, own in zip(sublayer.inputs, inputs, strict=True):
        if rows.fused is not None:
            keys, rest = divmod(own.outputs - output.inputs, 2)
            if keys < 1 or rest:
                return True
            grouped.append(keys)
    return any(plain) or any(width != grouped[0] or (width and output.inputs % width) for width in grouped)


def unit_groups(structure: CheckpointStructure, config: Mapping[str, Any]) -> tuple[UnitGroup, ...]:
    """Describe the prunable units of a checkpoint, sublayer by sublayer.

    Raises:
        UnsupportedArchitecture: The configuration does not state the head size, or a width is not a multiple of it.
        ModelUnreadable: The configuration states another number of key and value heads than the checkpoint has.
    """
    hidden, decoder = structure.sublayers[0].hidden, structure.signature.decoder
    encoder_shape = head_shape(config, hidden)
    decoder_shape = encoder_shape if decoder is None else head_shape(config, hidden, DECODER_HEADS)
    return tuple(
        _experts(sublayer, config)
        if sublayer.experts
        else replace(
            _group(sublayer, *(decoder_shape if sublayer.family is decoder else encoder_shape)),
            times=_layers_of(config) if sublayer.family.shared else 1,
        )
        for sublayer in structure.sublayers
    )


def _layers_of(config: Mapping[str, Any]) -> int:
    """Return how often the one block of a model runs; what transformers takes where the configuration does not state it."""
    return number(config, LAYERS) or _USUAL_LAYERS


def head_shape(config: Mapping[str, Any], hidden: int, names: tuple[str, ...] = HEADS) -> tuple[int, int]:
    """Return the head size, and the number of query heads that share a key and a value.

    Raises:
        UnsupportedArchitecture: The configuration does not state them, or they do not divide evenly.
    """
    heads = number(config, names)
    if heads is None:
        raise UnsupportedArchitecture("config.json does not say how many attention heads the model has", param="model")
    groups = key_heads(config) or heads
    size = number(config, _HEAD_SIZES)
    if size is None and hidden % heads:
        raise UnsupportedArchitecture(f"hidden size {hidden} is not a multiple of {heads} heads", param="model")
    if heads % groups:
        raise UnsupportedArchitecture(f"{heads} heads cannot share {groups} keys and values evenly", param="model")
    return size or hidden // heads, heads // groups


def key_heads(config: Mapping[str, Any]) -> int | None:
    """Return the number of keys and values that a configuration states; None where each head has its own."""
    if "new_decoder_architecture" in config or config.get("model_type") == "falcon":  # states a number that it may not mean
        if config.get("new_decoder_architecture"):
            return number(config, ("num_kv_heads",))
        return 1 if config.get("multi_query", True) else None
    return number(config, ("num_key_value_heads",))


def number(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the first value that a configuration states under one of the names; None unless it is a positive integer."""
    found = next((config[name] for name in names if config.get(name) is not None), None)
    return found if type(found) is int and found >= 1 else None  # `true` is an int in Python


def _experts(sublayer: StoredSublayer, config: Mapping[str, Any]) -> UnitGroup:
    """Describe the experts of a mixture."""
    passed = number(config, PASSED)
    if passed is None or passed > sublayer.experts:
        said = "does not say how many experts a token passes through" if passed is None else f"sends a token through {passed}"
        raise ModelUnreadable(
            f"config.json {said} (num_experts_per_tok), and layer {sublayer.layer + 1} has {sublayer.experts} experts: it must "
            f"be a whole number from 1 to {sublayer.experts}",
            param="model",
        )
    (matrix,), (router,) = sublayer.inputs, sublayer.followers
    return unit_group(
        sublayer.layer,
        "expert",
        units=sublayer.experts,
        unit_width=sublayer.output.inputs // sublayer.experts,
        hidden=sublayer.hidden,
        inputs=[RowCount(matrix.outputs // sublayer.experts, matrix.bias)],
        followers=[RowCount(1, router.bias)],
        least=passed,
        passed=passed,
    )


def _group(sublayer: StoredSublayer, size: int, queries: int) -> UnitGroup:
    head = sublayer.signature.kind == "head"
    width = size * queries if head else 1
    units, rest = divmod(sublayer.output.inputs, width)
    if rest:
        raise UnsupportedArchitecture(
            f"attention width {sublayer.output.inputs} of layer {sublayer.layer} is not a multiple of {width}, the width of "
            "the heads that share a key and a value",
            param="model",
        )

    for rows, matrix in zip(sublayer.signature.inputs, sublayer.inputs, strict=True):
        wanted = units * sum(rows.of_unit(size, width))
        if (rows.grouped or rows.fused) and matrix.outputs != wanted:
            and_not = f" and not {wanted}" if rows.fused else ""
            raise ModelUnreadable(
                f"config.json says that there are {units} keys and values, {size} wide each, but {matrix.path} of layer "
                f"{sublayer.layer + 1} has {matrix.outputs} rows{and_not}; the two belong to different models",
                param="model",
            )

    def count(rows: UnitRows, matrix: StoredMatrix) -> RowCount:
        return RowCount(sum(rows.of_unit(size, width)), matrix.bias)

    present = {rows.path: rows for rows in sublayer.signature.followers}
    return unit_group(
        sublayer.layer,
        sublayer.signature.kind,
        units=units,
        unit_width=width,
        hidden=sublayer.hidden,
        inputs=[count(rows, matrix) for rows, matrix in zip(sublayer.signature.inputs, sublayer.inputs, strict=True)],
        followers=[count(present[matrix.path], matrix) for matrix in sublayer.followers],
        vectors=sublayer.vectors,
        least_neurons=sublayer.family.least_neurons,
        least=units if head and sublayer.family.whole_attention else 0,
    )


def matrices_of(structure: CheckpointStructure) -> Iterator[tuple[int, StoredMatrix]]:
    """Yield the prunable matrices of a checkpoint, each with the index of its block."""
    for sublayer in structure.sublayers:
        for matrix in sublayer.prunable:
            yield sublayer.layer, matrix


def stored_name(module: str, structure: CheckpointStructure | None) -> str:
    """Return the path of a linear layer in the checkpoint's files. In most checkpoints it is the module path."""
    if structure is not None and structure.signature.stored:
        for layer, matrix in matrices_of(structure):
            if module.endswith(f".{layer}.{matrix.path}"):
                return matrix.name
    return module


def groups_of(facts: CheckpointFacts) -> tuple[UnitGroup, ...]:
    """Describe the prunable units of a checkpoint, sublayer by sublayer in the order in which they run.

    Raises:
        UnsupportedArchitecture: The checkpoint has no known block structure, or as `unit_groups`.
        ModelUnreadable: As `unit_groups`.
    """
    return unit_groups(structure_of(facts), facts.config)


def absent_attentions(config: Mapping[str, Any]) -> frozenset[int]:
    """Return the layers that a configuration says to have no attention: a bundle of ours states them."""
    stated: object = config.get("quantization_config")
    own: object = cast("dict[str, object]", stated).get("absent") if isinstance(stated, dict) else None
    paths = cast("dict[str, object]", own) if isinstance(own, dict) else {}
    return frozenset(int(found[1]) for path in paths if (found := ABSENT.fullmatch(path)))


def structure_of(facts: CheckpointFacts) -> CheckpointStructure:
    """Find the block structure of a checkpoint.

    Raises:
        UnsupportedArchitecture: No signature fits, or the model type is refused by name. The message says what is supported.
    """
    structure = find_structure(facts.shapes, absent_attentions(facts.config))
    if structure is None or reason_against(facts.config) is not None:
        raise unsupported(facts.config)
    return structure
