"""The plug-in for vLLM, an entry point of ours (`vllm.general_plugins`): with it, ``vllm serve BUNDLE`` needs no remote code.

vLLM calls `register` in each of its processes. Importing this file imports no vLLM.
"""

from __future__ import annotations

import importlib
from typing import Any

# The architecture of bundles that DeciLM's words can't describe, and where its class is.
ARCHITECTURE = "CoppiceForCausalLM"
_CLASS = "pruning_core.plugin.vllm_model:CoppiceForCausalLM"


def register() -> None:
    """Tell vLLM's registry of our model class, and transformers' of our configurations. May be called again."""
    importlib.import_module("pruning_core.plugin.configuration")
    registry: Any = importlib.import_module("vllm").ModelRegistry
    if ARCHITECTURE not in registry.get_supported_archs():
        registry.register_model(ARCHITECTURE, _CLASS)
