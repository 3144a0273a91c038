"""The configuration of a bundle, in its own words and in those of the model that it was made from. Torch-free.

Layers of a pruned model have widths of their own, which the configuration of its model type cannot say. Under that type, stock
transformers would build layers of other shapes and offer to fill them at random. So the bundle's ``model_type`` is one that
stock transformers does not know: it then asks for ``trust_remote_code`` by name, and loads nothing that is wrong.

This file is self-contained on purpose: it is also copied into every bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

OURS = "coppice"
# The type of models by neural architecture search, whose words engines know. Configurations of others have it too.
SERVED = "nemotron-nas"
MODEL_TYPES = (OURS, SERVED)
# Entries that are added to the base model's; all others are its own.
ADDED = ("base_model_type", "base_architecture", "block_configs", "per_layer_config", "qkv_bias", OURS)


def is_wrapped(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration is that of a bundle, in the bundle's own words."""
    return (
        config.get("model_type") in MODEL_TYPES and isinstance(config.get(OURS), dict) and bool(config.get("base_model_type"))
    )


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bundle's configuration as that of its base model, with the shapes as our ``quantization_config``.

    A configuration that is no bundle's is returned as it is.
    """
    if not is_wrapped(config):
        return dict(config)
    plain = {name: value for name, value in config.items() if name not in ADDED}
    plain["model_type"] = config["base_model_type"]
    if "base_architecture" in config:
        plain["architectures"] = [config["base_architecture"]]
    return plain | {"quantization_config": {"quant_method": OURS, **cast("dict[str, Any]", config[OURS])}}


def wrapped_config(plain: Mapping[str, Any], added: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the configuration of a bundle in its own words.

    Args:
        plain: As `plain_config` returns it.
        added: Further entries, such as another ``model_type`` and what engines read.
    """
    own = {name: value for name, value in plain["quantization_config"].items() if name != "quant_method"}
    config = {name: value for name, value in plain.items() if name != "quantization_config"}
    architectures = plain.get("architectures")
    if architectures:
        config["base_architecture"] = architectures[0]
    return config | {"model_type": OURS, "base_model_type": plain["model_type"], OURS: own} | dict(added or {})
