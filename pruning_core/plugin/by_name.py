"""The reading of bundles by model classes that are used by name, as ``LlamaForCausalLM.from_pretrained(bundle)``.

Such a class asks its own configuration class to read config.json, whatever ``model_type`` that states. transformers has no
place to register at for this, so importing this file replaces the two methods through which every such class reads. Only a
process that imports Coppice does so; without Coppice, the sizes of the layers do not match and the class refuses them.
"""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pruning_core.plugin import configuration  # as a module: it may be the one whose import has led here
from pruning_core.plugin.words import plain_config

_get_config_dict: Any = PreTrainedConfig.get_config_dict.__func__
_from_dict: Any = PreTrainedConfig.from_dict.__func__


def _get_plain(cls: type[PreTrainedConfig], *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    config, rest = _get_config_dict(cls, *args, **kwargs)
    if cls is PreTrainedConfig or issubclass(
        cls, configuration.CoppiceModelConfig
    ):  # Auto classes read by these, and know our types
        return config, rest
    is_of_its_type = config.get("base_model_type") == cls.model_type
    return configuration.plain_with_words(config) if is_of_its_type else plain_config(config), rest


def _from_plain(cls: type[PreTrainedConfig], config_dict: dict[str, Any], **kwargs: Any) -> Any:
    saves_plain = cls.model_type in CONFIG_MAPPING and CONFIG_MAPPING[cls.model_type] is cls
    reader = configuration.kept_class(cls.model_type) if saves_plain and "bundle_words" in config_dict else cls
    return _from_dict(reader, config_dict, **kwargs)


if not hasattr(PreTrainedConfig, "reads_bundles"):
    setattr(PreTrainedConfig, "get_config_dict", classmethod(_get_plain))  # noqa: B010 - the checker forbids it as assignment
    setattr(PreTrainedConfig, "from_dict", classmethod(_from_plain))  # noqa: B010
    setattr(PreTrainedConfig, "reads_bundles", True)  # noqa: B010
