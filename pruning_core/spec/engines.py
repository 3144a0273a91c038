"""Engines that people serve models with: their names and titles. Torch-free.

What an engine can hold is in `pruning_core.engines`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pruning_core.spec.registered import OneOf

# The registry: an engine is a row here, a row of `pruning_core.engines.registry.ENGINES`, and a script that runs it.
ENGINE_TITLES: Mapping[str, str] = {
    "transformers": "transformers",
    "vllm": "vLLM",
    "vllm-plugin": "vLLM with Coppice's model class",
    "llama.cpp": "llama.cpp",
    "mlx": "MLX",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "sentence-transformers": "sentence-transformers",
}

EngineName = Annotated[str, OneOf(ENGINE_TITLES)]
