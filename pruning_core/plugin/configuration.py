"""The configuration classes of bundles, for transformers and vLLM.

Importing this file registers them. It is copied into every bundle too, behind `words`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto import configuration_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, AutoConfig

from pruning_core.plugin.words import ADDED, OURS, SERVED, is_wrapped, plain_config, wrapped_config


class CoppiceModelConfig(PreTrainedConfig):
    """A bundle's configuration on its way to that of its base model."""

    model_type = OURS

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return the base model's configuration, which remembers the bundle's words for when it is saved.

        Raises:
            ValueError: It is no bundle's, but one of the same type by others.
        """
        if not is_wrapped(config_dict):
            raise ValueError(
                f"this {cls.model_type} model is none of Coppice's; pass trust_remote_code=True to load it by its own code"
            )
        kept = kept_class(config_dict["base_model_type"])
        if "vllm" in sys.modules:
            return _for_vllm(kept, config_dict, kwargs)
        return kept.from_dict(plain_with_words(config_dict), **kwargs)


class CoppiceServedConfig(CoppiceModelConfig):
    """The same in the words that engines know."""

    model_type = SERVED


def plain_with_words(config: dict[str, Any]) -> dict[str, Any]:
    """Return a bundle's configuration as that of its base model, with the bundle's words beside it for `kept_class` to save.

    A configuration that is no bundle's is returned as it is.
    """
    if not is_wrapped(config):
        return config
    words = {name: config[name] for name in (*ADDED, "model_type", "architectures") if name in config and name != OURS}
    return plain_config(config) | {"bundle_words": words}


# Classes by their names: a configuration that is pickled finds its class here.
_KEPT: dict[str, type[PreTrainedConfig]] = {}


def kept_class(model_type: str) -> type[PreTrainedConfig]:
    """Return a base model's configuration class that saves itself in the bundle's words.

    It has the name of the class itself, by which transformers finds models and tokenizers.
    """
    base: type[PreTrainedConfig] = CONFIG_MAPPING[model_type]
    if base.__name__ not in _KEPT:

        def to_dict(self: PreTrainedConfig) -> dict[str, Any]:
            return _in_words(base.to_dict(self))

        def to_diff_dict(self: PreTrainedConfig) -> dict[str, Any]:
            return _in_words(base.to_diff_dict(self))

        entries = {"to_dict": to_dict, "to_diff_dict": to_diff_dict, "__module__": __name__, "__qualname__": base.__name__}
        _KEPT[base.__name__] = type(base.__name__, (base,), entries)
    return _KEPT[base.__name__]


def _in_words(found: dict[str, Any]) -> dict[str, Any]:
    words = found.pop("bundle_words", None)
    own = found.get("quantization_config")
    if words is None or not isinstance(own, dict) or own.get("quant_method") != OURS:
        return found
    return wrapped_config(found, words)


def __getattr__(name: str) -> Any:
    """Find a class of `kept_class`, in a process that unpickles a configuration too."""
    names: Mapping[str, str] = configuration_auto.CONFIG_MAPPING_NAMES  # pyright: ignore[reportPrivateImportUsage]
    model_type = next((model_type for model_type, own in names.items() if own == name), None)
    if model_type is None:
        raise AttributeError(name)
    return kept_class(model_type)


class _Words(dict[str, Any]):
    """An object of JSON whose entries are attributes, as DeciLM's code reads them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _for_vllm(kept: type[PreTrainedConfig], config: Mapping[str, Any], kwargs: dict[str, Any]) -> Any:
    """Return the configuration that vLLM's model classes read: the shapes of each layer as objects, not our plug-in's entry."""
    given = {name: value for name, value in plain_config(config).items() if name != "quantization_config"}
    given["architectures"] = config.get("architectures")
    widths = {int(layer): entries for layer, entries in (config.get("per_layer_config") or {}).items()}
    # A quantization_config beside our words is of a form that vLLM unpacks, such as compressed-tensors.
    given |= {name: config[name] for name in ("qkv_bias", "quantization_config") if name in config}
    found = kept.from_dict(given, **kwargs)
    own = found[0] if isinstance(found, tuple) else found
    own.block_configs = [
        _block(block, widths.get(layer, {}), own) for layer, block in enumerate(config.get("block_configs") or ())
    ]
    return found


def _block(block: Mapping[str, Any], width: Mapping[str, Any], config: Any) -> _Words:
    ffn = {
        "no_op": block["ffn"].get("no_op", False),
        "intermediate_size": width.get("intermediate_size", config.intermediate_size),
    }
    return _Words(attention=_Words(block["attention"]), ffn=_Words(ffn))


for _own in (CoppiceModelConfig, CoppiceServedConfig):
    if _own.model_type not in CONFIG_MAPPING:
        AutoConfig.register(_own.model_type, _own)
