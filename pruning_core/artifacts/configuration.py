"""The ``config.json`` of a checkpoint whose layers differ: one file that stock libraries understand or refuse by name.

It has a ``model_type`` that stock transformers does not know (`plugin.words`), so that nothing loads with layers of other
shapes. In the layout ``serve`` it has the words that engines read as well: ``block_configs`` of DeciLM (vLLM, MLX, SGLang,
TensorRT-LLM), ``per_layer_config`` of transformers, and AnyModel's keys.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pruning_core.arch.alike import FFN_WIDTHS
from pruning_core.arch.structure import LAYERS, number
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.plugin import configuration, per_layer, words
from pruning_core.plugin.words import SERVED, plain_config, wrapped_config
from pruning_core.spec.artifacts import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REMOTE_CODE_NAME = "modeling_coppice"
# MLX and DeciLM's first form compute a width from a share of the hidden size, rounded up to a multiple of this.
_MULTIPLE = 256
_FUTURE = "from __future__ import annotations\n"


def class_name(student: PreTrainedModel) -> str:
    """Return the name of the model class that the bundle's own file defines."""
    return f"Coppice{type(student).__name__.removeprefix('Coppice')}"


def loader_of(auto_class: str, name: str) -> dict[str, str]:
    """Return the ``auto_map`` by which the bundle's own file is found, for those who trust it."""
    return {"AutoConfig": f"{REMOTE_CODE_NAME}.CoppiceModelConfig", auto_class: f"{REMOTE_CODE_NAME}.{name}"}


def write_configuration(folder: Path, layout: Layout, groups: Sequence[UnitGroup], loader: Mapping[str, str]) -> None:
    """Rewrite a written config.json, which states the shapes as our ``quantization_config``, in the bundle's own words.

    Args:
        folder: The checkpoint.
        layout: Its layout.
        groups: The pruned model's unit groups.
        loader: The ``auto_map``.
    """
    path = folder / "config.json"
    plain = plain_config(cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))) | {"auto_map": dict(loader)}
    added = _served(plain, groups) if layout == "serve" else _widths(plain, groups)
    if added.get("model_type") == SERVED:
        added["auto_map"] = dict(loader) | {"AutoConfig": f"{REMOTE_CODE_NAME}.CoppiceServedConfig"}
    path.write_text(json.dumps(wrapped_config(plain, added), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _widths(plain: Mapping[str, Any], groups: Sequence[UnitGroup]) -> dict[str, Any]:
    """Return the FFN widths in transformers' own words, where its configuration has one width for all layers.

    A model class that is used by name does not look at ``model_type``. By these words it refuses the layers (since 5.14);
    without them it would offer to fill them at random.
    """
    name = next((name for name in FFN_WIDTHS if name in plain), None)
    sizes = [(group.layer, group.size) for group in groups if group.kind != "head"]
    if name is None or number(plain, LAYERS) != len(sizes) or len(dict(sizes)) != len(sizes):
        return {}
    widths = {str(layer): {name: size} for layer, size in sizes if size != plain[name]}
    return {"per_layer_config": widths} if widths else {}


def _served(plain: Mapping[str, Any], groups: Sequence[UnitGroup]) -> dict[str, Any]:
    """Return what engines read of layers that differ: of a decoder built like Llama."""
    heads, keys = int(plain["num_attention_heads"]), int(plain.get("num_key_value_heads") or plain["num_attention_heads"])
    queries, hidden, width = heads // keys, int(plain["hidden_size"]), int(plain["intermediate_size"])
    attention = {group.layer: group.size for group in groups if group.kind == "head"}  # none where a layer has none
    ffns = [group for group in groups if group.kind != "head"]
    whole = all(size == keys for size in attention.values())
    exact = [{"no_op": False, "intermediate_size": group.size} for group in ffns]
    shared = [{"no_op": False, "ffn_mult": ffn_mult(group.size, hidden)} for group in ffns]
    rounded = all(group.size % _MULTIPLE == 0 for group in ffns)
    blocks = [
        {
            "attention": {"no_op": False, "n_heads_in_group": queries}
            | ({} if rounded and whole else {"num_key_value_heads": attention[layer]})
            if layer in attention
            else {"no_op": True},
            "ffn": ffn,
        }
        for layer, ffn in enumerate(shared if rounded and whole else exact)
    ]
    layers: dict[str, dict[str, Any]] = {}
    for layer, ffn in enumerate(ffns):
        own = attention.get(layer)
        entries: dict[str, Any] = {"intermediate_size": ffn.size} if ffn.size != width else {}
        if own is None:
            # The number is for a class that is used by name: it refuses a number that varies, and knows no skip yet.
            entries |= {"skip": ["attention"], "num_attention_heads": 0}
        elif own != keys:
            entries |= {"num_key_value_heads": own, "num_attention_heads": own * queries}
        if entries:
            layers[str(layer)] = entries
    added: dict[str, Any] = {"block_configs": blocks, "per_layer_config": layers}
    if plain["model_type"] == "qwen2":  # DeciLM's name for biases of queries, keys and values alone
        added["qkv_bias"] = True
    return added | (
        {"model_type": SERVED, "architectures": ["DeciLMForCausalLM"]} if whole else {"architectures": ["CoppiceForCausalLM"]}
    )


def ffn_mult(width: int, hidden: int) -> float:
    """Return a share from which readers compute a width, as ``ceil256(int(2 ffn_mult hidden / 3))``: the middle of all such."""
    return round(3 * (width - _MULTIPLE // 2) / (2 * hidden), 6)


def remote_code(student: PreTrainedModel, name: str) -> str:
    """Generate the file that ``trust_remote_code=True`` runs: the plug-in's source, and a model class that uses it."""
    base = next(cls for cls in type(student).__mro__ if cls.__module__.startswith("transformers."))
    parts = [inspect.getsource(module) for module in (words, configuration, per_layer)]
    own = [
        line for part in parts[1:] for line in part.replace(_FUTURE, "").splitlines() if "pruning_core.plugin.words" not in line
    ]
    code = "\n".join(own)
    return (
        f"{parts[0]}\n\n{code}\n\n\n"
        f"from {base.__module__} import {base.__name__}  # noqa: E402\n\n\n"
        f"class {name}({base.__name__}):\n"
        f'    """{base.__name__} whose layers have their own widths, as written by Coppice."""\n'
        f"{_conversions(student, base.__name__, name)}"
    )


def _conversions(student: PreTrainedModel, base: str, name: str) -> str:
    """Return the code that lets a bundle's own class read what transformers renames or converts while it loads the base's.

    transformers does so by the classes that it has itself: for a head (GPT-NeoX) by the name of its class, for experts that are
    stored one by one by the type of the model, which it finds within a model with a head.
    """
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    bare_mixture = student.base_model is student and hasattr(student.config, "num_experts_per_tok")
    if get_checkpoint_conversion_mapping(base) is not None:
        known = base
    elif bare_mixture:
        known = student.config.model_type
    else:
        return ""
    return (
        "\n\nfrom transformers.conversion_mapping import (  # noqa: E402\n"
        "    get_checkpoint_conversion_mapping,\n    register_checkpoint_conversion_mapping,\n)\n\n"
        f'_conversions = get_checkpoint_conversion_mapping("{known}")\n'
        "if _conversions is not None:\n"
        f'    register_checkpoint_conversion_mapping("{name}", _conversions, overwrite=True)\n'
    )
