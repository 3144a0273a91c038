"""Loading of paged models: the weights of the blocks stay in the checkpoint's files until a block runs.

transformers decides which tensor goes where: it renames and ties tensors, and resizes layers as a bundle's config says. It is
given the checkpoint's tensors, memory-mapped. For each weight of a block's linears, it is given a stand-in instead: a tensor of
the same shape that takes the memory of one number. The place where the stand-in ends up is the place of the weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.adapter import adapt
from pruning_core.arch.experts import Spread
from pruning_core.arch.paging import Page
from pruning_core.arch.structure import structure_of
from pruning_core.errors import UnsupportedArchitecture
from pruning_core.files.checkpoint import CheckpointFacts
from pruning_core.files.tensors import MappedTensor, map_tensors
from pruning_core.models.plain import load_config

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

    from pruning_core.arch.linear import PlainLinear


def load_paged(
    folder: Path, auto_class: str, facts: CheckpointFacts, device: torch.device, scratch: Path
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a checkpoint without reading the weights of its blocks.

    Args:
        folder: The checkpoint.
        auto_class: Name of one of transformers' Auto classes.
        facts: Facts from the checkpoint's headers.
        device: Device on which the model runs.
        scratch: Folder for the files of replaced weights.

    Returns:
        The model in float32, and the loading info of transformers.

    Raises:
        UnsupportedArchitecture: transformers converts the weights while it loads them.
    """
    mapped = map_tensors(facts)
    structure = structure_of(facts)
    paged = {
        f"{matrix.name}.weight"
        for sublayer in structure.sublayers
        for matrix in (*sublayer.inputs, *sublayer.followers, sublayer.output)
    } & mapped.keys()
    stand_ins = {name: torch.zeros(1).expand(mapped[name].shape) for name in paged}
    tensors = {name: stand_ins[name] if name in stand_ins else stored.mapped() for name, stored in mapped.items()}
    model_class, config = class_and_config(folder, auto_class)
    model, info = model_class.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=torch.float32,
        output_loading_info=True,
        generation_config=generation_config_of(folder),
    )
    taken = {stand_in.data_ptr(): name for name, stand_in in stand_ins.items()}
    _page_blocks_(model, {pointer: mapped[name] for pointer, name in taken.items()}, device, scratch)
    moved: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        _move_own_(module, device, moved)
    return model.requires_grad_(False).eval(), info


def class_and_config(folder: Path, auto_class: str) -> tuple[Any, PreTrainedConfig]:
    """Find the model class and config that the Auto class would load. Only the model's own class accepts a state dict."""
    import transformers

    config = load_config(folder)
    with torch.device("meta"):
        model = getattr(transformers, auto_class).from_config(config, trust_remote_code=False)
    own = isinstance(config, type(model.config))
    return type(model), config if own else config.get_text_config()


def generation_config_of(folder: Path) -> GenerationConfig | None:
    """Read the generation config as transformers does from a folder: from its own file, or else from the model's config."""
    import transformers

    name = "generation_config.json" if (folder / "generation_config.json").is_file() else "config.json"
    return transformers.GenerationConfig.from_pretrained(folder, config_file_name=name, local_files_only=True)


def _page_blocks_(model: PreTrainedModel, where: Mapping[int, MappedTensor], device: torch.device, scratch: Path) -> None:
    linears: dict[nn.Module, dict[PlainLinear, MappedTensor]] = {}
    missing = dict(where)
    for sublayer in adapt(model).sublayers:
        own = linears.setdefault(sublayer.block, {})
        for linear in (*(part.linear for part in (*sublayer.parts, *sublayer.followers)), sublayer.output):
            if isinstance(linear, Spread):  # experts are stored one by one, and loaded in one tensor
                raise _converted(model)
            pointer = linear.weight.data_ptr()
            if pointer not in where:
                raise _converted(model)
            own[linear] = where[pointer]
            missing.pop(pointer, None)
    if missing:
        raise _converted(model)
    for block, own in linears.items():
        Page(block, own, device, scratch)


def _converted(model: PreTrainedModel) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"transformers converts the weights of {type(model).__name__} while it loads them, so that they cannot stay in the "
        "checkpoint's files until they are needed; use memory.weights resident",
        param="memory.weights",
    )


def _move_own_(module: nn.Module, device: torch.device, moved: dict[nn.Parameter, nn.Parameter]) -> None:
    """Move a module's own parameters and buffers to the device in place, except paged ones. Tied parameters stay tied."""
    for name, parameter in module.named_parameters(recurse=False):
        if not parameter.is_meta:
            if parameter not in moved:
                moved[parameter] = nn.Parameter(parameter.detach().to(device), requires_grad=False)
            setattr(module, name, moved[parameter])
    for name, buffer in cast("Mapping[str, Tensor]", dict(module.named_buffers(recurse=False))).items():
        setattr(module, name, buffer.to(device))
