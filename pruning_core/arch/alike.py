"""Whether all layers of a model are alike and as wide as its config says, which the stock layout needs. Torch-free.

Asked of the files of a checkpoint at submit, and of the loaded model by the job: one judgement, in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pruning_core.arch.signatures import BlockSignature
from pruning_core.arch.structure import HEADS, LAYERS, CheckpointStructure, number
from pruning_core.arch.units import UnitGroup
from pruning_core.errors import UnsupportedArchitecture

# A config keeps any other name that it is given, without a meaning: a family's own word goes first.
FFN_WIDTHS = ("n_inner", "ffn_dim", "hidden_dim", "intermediate_size")


@dataclass(frozen=True, slots=True)
class Build:
    """How a model is built.

    Attributes:
        config: What its configuration says, by name. What it leaves unsaid is not judged.
        family: Layout of its blocks.
        groups: Its units, sublayer by sublayer.
        parts: What each block consists of: names of its tensors, or the kinds of its modules.
    """

    config: Mapping[str, Any]
    family: BlockSignature
    groups: Sequence[UnitGroup]
    parts: Sequence[frozenset[str]]

    @classmethod
    def of_files(
        cls,
        config: Mapping[str, Any],
        shapes: Mapping[str, tuple[int, ...]],
        structure: CheckpointStructure,
        groups: Sequence[UnitGroup],
    ) -> Build:
        """Read it off the names of tensors."""
        prefixes = {
            sublayer.layer: sublayer.output.name.removesuffix(sublayer.family.stored_path(sublayer.output.path))
            for sublayer in structure.sublayers
        }
        parts = [
            frozenset(name.removeprefix(prefix) for name in shapes if name.startswith(prefix)) for prefix in prefixes.values()
        ]
        return cls(config, structure.signature, groups, parts)


def check_alike(build: Build, *, cuts: bool) -> None:
    """See that a model is built as its config says, layer for layer, and alike in every layer.

    Args:
        build: Of the dense model.
        cuts: Whether units are to go; a method that changes no shape needs no words for it.

    Raises:
        UnsupportedArchitecture: It is not, or its config says it in words that are not known here.
    """
    if build.config.get("quantization_config") is not None:
        raise _refused("this one has widths of its own")
    if not cuts:
        return
    if build.family.decoder is not None:
        raise _refused("this one has an encoder and a decoder")
    if not _is_as_said(build):
        raise _refused("this one has widths of its own")
    if len(set(build.parts)) > 1:
        raise _refused("the first layer of this one differs from the others")
    if build.config.get("residual_multiplier", 1) != 1:
        raise _refused("this one scales what each half of a layer adds")
    if any(sublayer.inner is not None for sublayer in build.family.sublayers):
        raise _refused("this one has norms that no other layer can stand in for")
    kinds = build.config.get("layer_types")
    if isinstance(kinds, list) and len(set(cast("list[str]", kinds))) > 1:
        raise _refused("layers of this one attend in different ways")


def _is_as_said(build: Build) -> bool:
    heads = number(build.config, ("num_key_value_heads",)) or number(build.config, HEADS)
    pairs = (
        (heads, {group.size for group in build.groups[::2]}),
        (ffn_width(build.config, build.groups[0].hidden), {group.size for group in build.groups[1::2]}),
        (number(build.config, LAYERS), {len(build.groups) // 2}),
    )
    return all(said is None or found == {said} for said, found in pairs)


def ffn_width(config: Mapping[str, Any], hidden: int, names: Sequence[str] = FFN_WIDTHS) -> int | None:
    """Give the FFN width that a config says; GPT-2's is four times the hidden one where it says none."""
    name = next((name for name in names if name in config), None)
    if name == "n_inner" and config[name] is None:
        return 4 * hidden
    return None if name is None else number(config, (name,))


def _refused(why: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"the stock layout needs a model whose layers are all alike and as wide as its config says; {why}, "
        "use artifacts.layout per_layer",
        param="artifacts.layout",
    )
