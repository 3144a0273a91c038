"""Configurations and tokenizers without hooks: what is loaded is what was checked, whatever becomes of the files meanwhile.

`checks.hooks` says what a hook is. A file of which something must be left out is read from a folder with a clean copy of it,
copies of the other small files, and an index of the weights; the files of all other models are read where they lie.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pruning_core.checks.hook_rules import ATTENTIONS, EXPERTS, LEFT_OUT
from pruning_core.checks.hooks import Cleaned, check_hooks, cleaned_json, hooked_files
from pruning_core.errors import ModelUnreadable
from pruning_core.files.checkpoint import INDEX_NAME, read_checkpoint
from pruning_core.files.companions import copy_companions
from pruning_core.files.safetensors_header import read_header

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@contextmanager
def without_hooks(folder: Path) -> Generator[Path]:
    """Yield a folder with a checkpoint's files, without the hooks that may be left out.

    Args:
        folder: The checkpoint.

    Yields:
        The folder itself where nothing is to be left out; else a folder of its own that is removed at the end.

    Raises:
        ModelUnreadable: The checkpoint has a hook that cannot be left out.
    """
    check_hooks(folder)
    found = {name: own for name in hooked_files(folder) if (own := cleaned_json(folder, name)) is not None and own.left_out}
    if not found:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="coppice-model-") as own:
        view = Path(own)
        copy_companions(folder, view, but=found)
        if "config.json" not in found:
            shutil.copyfile(folder / "config.json", view / "config.json")
        for name, cleaned in found.items():
            (view / name).parent.mkdir(exist_ok=True)
            write_cleaned(view / name, cleaned)
        _write_index(folder, view)
        yield view


def write_cleaned(path: Path, cleaned: Cleaned) -> None:
    """Write a JSON file without its hooks."""
    path.write_text(json.dumps(cleaned.value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_index(folder: Path, view: Path) -> None:
    """Write an index that names the weight files where they lie: a job may make no links, and a copy takes long."""
    files = read_checkpoint(folder).weight_files
    places = {tensor.name: str(path.absolute()) for path in files for tensor in read_header(path)}
    index = {"metadata": {}, "weight_map": places}
    (view / INDEX_NAME).write_text(json.dumps(index), encoding="utf-8")


def load_config(folder: Path, dtype: torch.dtype | None = None) -> PreTrainedConfig:
    """Load a configuration as transformers' Auto classes do, and make sure that the object pulls no hook.

    Args:
        folder: The checkpoint.
        dtype: The type that the model will be loaded in; None: as the file says.

    Raises:
        ModelUnreadable: The object would have code loaded.
    """
    import transformers

    given: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **given)
    for own in _configs(config):
        # By gradient_checkpointing a model recomputes its layers for gradients: the values are the same, and no gradient of
        # what lies between the layers could be asked for.
        for name in (*LEFT_OUT, "gradient_checkpointing"):
            vars(own).pop(name, None)
        if getattr(own, "output_attentions", False):  # transformers saves no such configuration with its usual attention
            own.output_attentions = False
        for name, allowed in (("_attn_implementation", ATTENTIONS), ("_experts_implementation", EXPERTS)):
            if getattr(own, name, None) not in (None, *allowed):
                raise ModelUnreadable(f"config.json: {name} must be {', '.join(sorted(allowed))} or absent", param="model")
        if getattr(own, "transformers_weights", None) is not None:
            raise ModelUnreadable("config.json: transformers_weights names other weights than model.safetensors", param="model")
    _check_quantization(config)
    return config


def _configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    import transformers

    yield config
    for own in list(vars(config).values()):
        if isinstance(own, transformers.PreTrainedConfig):
            yield from _configs(own)


def _check_quantization(config: PreTrainedConfig) -> None:
    own: Any = getattr(config, "quantization_config", None)
    method = own.get("quant_method") if isinstance(own, dict) else getattr(own, "quant_method", None)
    if own is not None and method != "coppice":
        raise ModelUnreadable("config.json: quantization_config has another library loaded", param="model")
