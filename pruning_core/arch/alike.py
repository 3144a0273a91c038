"""The condition of the stock layout: all layers of a model are alike and as wide as its config says. Torch-free.

Submit checks it on the files of a checkpoint, the job on the loaded model, with the same verdict in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pruning_core.arch.signatures import BlockSignature
from pruning_core.arch.structure import EXPERTS, HEADS, LAYERS, CheckpointStructure, key_heads, number
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.errors import UnsupportedArchitecture

# A config also keeps names that have no meaning in its family, so the names of single families come first.
FFN_WIDTHS = ("n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim", "intermediate_size")


@dataclass(frozen=True, slots=True)
class Build:
    """The layers of a model beside what its configuration says of them.

    Attributes:
        config: The configuration, by name. Values that it does not state are not checked.
        family: Signature of the blocks.
        groups: Unit group of every sublayer.
        parts: Parts of each block: the names of its tensors, or the kinds of its modules.
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
        """Read the parts of each block from the tensor names of a checkpoint."""
        prefixes = {
            sublayer.layer: sublayer.output.name.removesuffix(sublayer.family.stored_path(sublayer.output.path))
            for sublayer in structure.sublayers
        }
        parts = [
            frozenset(name.removeprefix(prefix) for name in shapes if name.startswith(prefix)) for prefix in prefixes.values()
        ]
        return cls(config, structure.signature, groups, parts)


def check_alike(build: Build, *, cuts: bool) -> None:
    """Check that a model is as wide as its config says and that all its layers are alike.

    Args:
        build: The dense model's.
        cuts: Whether units will be removed. A method that changes no shape only needs a model that is not quantised.

    Raises:
        UnsupportedArchitecture: The stock layout cannot hold the model; the message says why.
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
    if any(group.kind == "expert" for group in build.groups):
        return  # what is in the way of a layer that stands in for another one is in nobody's way: all layers stay
    if build.config.get("residual_multiplier", 1) != 1:
        raise _refused("this one scales what each sublayer adds")
    if build.config.get("conv_kernel_size"):
        raise _refused("a convolution stands behind the first layer of this one")
    if any(sublayer.inner is not None for sublayer in build.family.sublayers):
        raise _refused("this one has norms that no other layer can stand in for")
    kinds = build.config.get("layer_types")
    if isinstance(kinds, list) and len(set(cast("list[str]", kinds))) > 1:
        raise _refused("layers of this one attend in different ways")


def _is_as_said(build: Build) -> bool:
    heads = key_heads(build.config) or number(build.config, HEADS)
    experts = build.groups[1].kind == "expert"
    wide = number(build.config, EXPERTS) if experts else ffn_width(build.config, build.groups[0].hidden)
    pairs = (
        (heads, {group.size for group in build.groups[::2]}),
        (wide, {group.size for group in build.groups[1::2]}),
        (number(build.config, LAYERS), {len(build.groups) // 2 * build.groups[0].times}),
    )
    return all(said is None or found == {said} for said, found in pairs)


def ffn_width(config: Mapping[str, Any], hidden: int, names: Sequence[str] = FFN_WIDTHS) -> int | None:
    """Return the FFN width that a config states, or None. Where ``n_inner`` is null (GPT-2), it is four times ``hidden``."""
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
