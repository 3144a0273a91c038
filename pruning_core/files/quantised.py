"""Quantised weights, refused by the name of who packed them, and files of other engines. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from pruning_core.errors import ModelUnreadable

OURS = "coppice"
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
_PACKED = frozenset(
    {
        *("I8", "U8", "I4", "U4", "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0"),
        *("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    }
)
# A checkpoint may keep small tables in integer types. Up to this share of its values is not taken for quantised weights.
_FEW = 0.01
_BEFORE = "give the checkpoint as it was before, in float32, float16 or bfloat16"
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]{0,63}", re.ASCII)
# Names of tensors that packers write beside, or instead of, a matrix. The first that fits names the packer.
_WRITTEN_BY: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("gptq or awq", re.compile(r".*\.(qweight|qzeros|g_idx)")),
    ("bitsandbytes", re.compile(r".*\.(absmax|nested_absmax|quant_map|SCB)|.*\.quant_state\..*")),
    ("compressed-tensors", re.compile(r".*\.weight_(packed|shape|zero_point|g_idx)")),
    ("fp8", re.compile(r".*\.(weight_scale|weight_scale_inv|input_scale)")),
    ("hqq", re.compile(r".*\.W_q")),
    ("aqlm", re.compile(r".*\.codebooks")),
    ("quanto", re.compile(r".*\.weight\._(data|scale|shift)")),
    ("mxfp4", re.compile(r".*_proj_(blocks|scales)")),
)
_OF_MLX = re.compile(r".*\.(scales|biases)")


def refuse_quantised(config: Mapping[str, Any], names: Collection[str], values: Mapping[str, int]) -> None:
    """Refuse quantised weights, which only the library that packed them can read, and float weights said to be such.

    Args:
        config: Configuration of the checkpoint.
        names: Names of its tensors.
        values: Number of values of each type, as safetensors names types.

    Raises:
        ModelUnreadable: The weights are quantised, or the configuration has a library load them that packs weights.
    """
    stated = config.get("quantization_config")
    method = _method(stated)
    if method == OURS:
        return
    packer = next((packer for packer, written in _WRITTEN_BY if any(map(written.fullmatch, names))), None)
    if packer is None and "U32" in values and any(map(_OF_MLX.fullmatch, names)):
        packer = "mlx"
    packed = sorted(kind for kind in values if kind in _PACKED) if _are_packed(values) else []
    if packer is None and not packed:
        _refuse_stated(stated, method)
        _refuse_integers(values)
        return
    shown = ", ".join(part for part in (method or packer, *packed) if part)
    raise ModelUnreadable(f"the weights are quantised ({shown}); {_BEFORE}", param="model")


def refuse_gguf(folder: Path) -> None:
    """Refuse a folder whose weights are files of llama.cpp's.

    Raises:
        ModelUnreadable: They are.
    """
    if any(folder.glob("*.gguf")):
        raise ModelUnreadable(
            "the weights are quantised (GGUF, a file for llama.cpp); give the checkpoint as it was before, with config.json "
            "and model.safetensors",
            param="model",
        )


def _are_packed(values: Mapping[str, int]) -> bool:
    return sum(count for kind, count in values.items() if kind in _PACKED) > _FEW * sum(values.values())


def _method(stated: object) -> str | None:
    """Return the name of the library that a quantization_config is for; None where it names none."""
    if not isinstance(stated, dict):
        return None
    entries = cast("dict[str, object]", stated)
    name = entries.get("quant_method")
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    return "bitsandbytes" if entries.get("load_in_4bit") or entries.get("load_in_8bit") else None


def _refuse_stated(stated: object, method: str | None) -> None:
    if stated is not None:
        of = "another library" if method is None else method
        raise ModelUnreadable(
            f"the config has a quantization_config of {of}; give the checkpoint as it was before. Its weights are plain "
            "floats: where they are the ones that you mean, remove the entry from config.json",
            param="model",
        )


def _refuse_integers(values: Mapping[str, int]) -> None:
    floats = sum(count for kind, count in values.items() if kind in _FLOATS)
    if floats < sum(values.values()) - floats:
        others = ", ".join(sorted(kind[:16] for kind in values if kind not in _FLOATS)[:4])
        raise ModelUnreadable(f"most of the weights are no floats ({others}); {_BEFORE}", param="model")
