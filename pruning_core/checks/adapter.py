"""The check of a LoRA adapter that is merged into a model before anything else: its settings, and the shapes of its matrices.

Torch-free. PEFT would act on settings that name modules to import or layers to repeat: only those listed here reach it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pruning_core.errors import ModelUnreadable
from pruning_core.files.bounded_json import JsonRefused, read_json
from pruning_core.files.checkpoint import ADAPTER_CONFIG
from pruning_core.files.safetensors_header import HeaderRefused, read_header

PARAM = "adapter"
WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_LARGEST_CONFIG_BYTES = 2**20
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_MOST_SHOWN = 3
_KIND = "LORA"
# What PEFT is given of an adapter's settings.
SETTINGS = frozenset(
    {
        *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "bias"),
        *("fan_in_fan_out", "use_rslora", "use_dora", "modules_to_save", "layers_to_transform", "layers_pattern"),
        *("rank_pattern", "alpha_pattern", "ensure_weight_tying"),
    }
)
# Of how it was trained and where: of no account for what it adds.
_IDLE = frozenset(
    {
        *("base_model_name_or_path", "revision", "peft_version", "inference_mode", "init_lora_weights", "auto_mapping"),
        *("megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "kasa_config", "velora_config"),
        *("qalora_group_size", "monteclora_config", "runtime_config"),
    }
)


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter's files say.

    Attributes:
        settings: Those that PEFT is given.
        changes: The shape that the matrix of each adapted module has, outputs and inputs, by module path.
        shapes: Shapes of whole tensors that it brings (heads, biases, embeddings), by name.
        rank: The largest rank of an update.
    """

    settings: Mapping[str, Any]
    changes: Mapping[str, tuple[int, int]]
    shapes: Mapping[str, tuple[int, ...]]
    rank: int


def read_adapter(folder: Path) -> AdapterFacts:
    """Read an adapter's settings and the header of its weights.

    Raises:
        ModelUnreadable: It is none, or of a kind or with a setting that is not merged here, or its matrices don't fit.
    """
    settings = _settings(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickled = "; adapter_model.bin is a pickle, which is not read: save it with save_pretrained once more"
        raise _refused(f"the folder has no {WEIGHTS}{pickled if (folder / _PICKLED).is_file() else ''}")
    try:
        tensors = {own.name.removeprefix(_PREFIX): own.shape for own in read_header(weights)}
    except HeaderRefused as error:
        raise _refused(f"{WEIGHTS} {error}") from None
    downs = {name.removesuffix(_DOWN): shape for name, shape in tensors.items() if name.endswith(_DOWN)}
    ups = {name.removesuffix(_UP): shape for name, shape in tensors.items() if name.endswith(_UP)}
    if not downs or downs.keys() != ups.keys():
        raise _refused(f"{WEIGHTS} holds no pairs of lora_A and lora_B of linear layers, which are what is merged here")
    for name, down in downs.items():
        if len(down) != 2 or len(ups[name]) != 2 or down[0] != ups[name][1] or not down[0]:
            raise _refused(f"the two matrices of {name[:96]} don't fit each other: {down} and {ups[name]}")
    whole = {name: shape for name, shape in tensors.items() if ".lora_" not in name}
    changes = {name: (ups[name][0], down[1]) for name, down in downs.items()}
    return AdapterFacts(settings, changes, whole, max(down[0] for down in downs.values()))


def check_adapter(facts: AdapterFacts, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an adapter of another base.

    Args:
        facts: The adapter.
        shapes: Shape of each of the base's tensors, by name.

    Raises:
        ModelUnreadable: A module that it changes is not in the base, or has another size there.
    """
    known = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    ends: dict[str, list[str]] = {}
    for name in known:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    lacking: list[str] = []
    for name, (outputs, inputs) in facts.changes.items():
        of_base = next((own for own in ends.get(name.rpartition(".")[2], ()) if _same(own, name)), None)
        if of_base is None:
            lacking.append(name)
        elif math.prod(known[of_base]) != outputs * inputs or {*known[of_base]} != {outputs, inputs}:
            raise _refused(
                f"it is of another base: its {name[:96]} is {outputs} x {inputs}, and the model's is "
                f"{' x '.join(map(str, known[of_base]))}"
            )
    # A base whose layers are stored under other names than it is loaded with has none of them: PEFT then says what it finds.
    if lacking and len(lacking) < len(facts.changes):
        shown = ", ".join(lacking[:_MOST_SHOWN])
        raise _refused(
            f"it is of another base: the model has no {shown[:200]} ({len(lacking)} of {len(facts.changes)} modules)"
        )


def _same(stored: str, name: str) -> bool:
    return stored == name or stored.endswith(f".{name}") or name.endswith(f".{stored}")


def _settings(folder: Path) -> dict[str, Any]:
    try:
        said = read_json(folder / ADAPTER_CONFIG, most_bytes=_LARGEST_CONFIG_BYTES)
    except FileNotFoundError:
        raise _refused(f"the folder has no {ADAPTER_CONFIG}; give the folder of a LoRA adapter of PEFT") from None
    except JsonRefused as error:
        raise _refused(f"{ADAPTER_CONFIG} {error}") from None
    except OSError:
        raise _refused(f"{ADAPTER_CONFIG} cannot be read by this machine") from None
    if not isinstance(said, dict):
        raise _refused(f"{ADAPTER_CONFIG} must be a JSON object")
    found = cast("dict[str, Any]", said)
    if found.get("peft_type") != _KIND:
        raise _refused(
            f"it is of the kind {str(found.get('peft_type'))[:32]!r}; LoRA adapters are merged here (peft_type {_KIND})"
        )
    odd = sorted(name for name, value in found.items() if value and name not in SETTINGS | _IDLE)
    if odd:
        raise _refused(
            f"it has the setting {odd[0][:48]!r}, which is not merged here: merge it yourself (merge_and_unload), and give the "
            "merged checkpoint"
        )
    return {name: value for name, value in found.items() if name in SETTINGS}


def _refused(why: str) -> ModelUnreadable:
    return ModelUnreadable(f"the adapter cannot be merged: {why}" if not why.startswith("the folder") else why, param=PARAM)
