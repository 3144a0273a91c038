"""Loading of a checkpoint for a task, as a `TaskModel`."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pruning_core.checks.embedder import is_embedding
from pruning_core.checks.heads import lacks_weights
from pruning_core.checks.model import stored_type
from pruning_core.checks.reader import NO_PADDING, NO_PADDING_INDEX
from pruning_core.checks.recipe import read_recipe
from pruning_core.errors import ModelUnreadable, PruningError
from pruning_core.files.checkpoint import CheckpointFacts, read_checkpoint
from pruning_core.files.companions import SENTENCEPIECE_NAMES
from pruning_core.files.tensors import map_tensors
from pruning_core.machine.finite import require_finite
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.models.embedder import load_embedder
from pruning_core.models.paged import class_and_config, generation_config_of, load_paged
from pruning_core.models.plain import load_config, without_hooks
from pruning_core.spec.prune import AUTO_CLASSES, TaskType
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.registry import family_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_task_model(folder: Path, task_type: TaskType, device: torch.device, *, pages: Path | None = None) -> TaskModel:
    """Load a checkpoint for a task, in float32. No code of the model's runs, and no pickle is read.

    Args:
        folder: Folder of the checkpoint.
        task_type: Task type, which decides the class of transformers that loads the checkpoint.
        device: Device that the model runs on.
        pages: Folder for new weights of paged blocks. The weights of the blocks then stay in the checkpoint's files until they
            are needed. None: all weights are loaded.

    Raises:
        ModelUnreadable: Files are missing or corrupt, or there is no head for the task, or no tokenizer; or they have code or
            other files loaded (`checks.hooks`).
        OutOfMemory: The host or the device has no room for the model.
        NotFinite: A loaded weight is NaN or infinite. Those of paged blocks are found later, in the blocks' statistics.
        UnsupportedArchitecture: The weights of this architecture cannot stay in the files.
    """
    facts = read_checkpoint(folder)
    recipe = read_recipe(folder) if is_embedding(task_type) else None
    with quiet_transformers(), without_hooks(folder) as plain:
        try:
            if pages is None and facts.wrappers:
                model, info = _load_renamed(plain, task_type, facts, device)
            elif pages is None:
                model, info = _load_whole(plain, task_type, device)
            else:
                model, info = load_paged(plain, AUTO_CLASSES[task_type], facts, device, pages)
        except PruningError:
            raise
        except Exception as error:  # of files that are not as transformers expects, it raises whatever comes
            raise_if_exhausted(error, "the model was loaded")
            reason = reason_of(error, plain, folder)
            raise ModelUnreadable(f"transformers cannot load the checkpoint: {reason}", param="model") from error
        processor = _load_processor(plain, task_type)
    _check_complete(info["missing_keys"], task_type)
    if getattr(model.config, "output_router_logits", False):
        # Only the training of a mixture reads them, for a loss that takes all layers to have the same number of experts.
        model.config.output_router_logits = False
    for name, parameter in model.named_parameters():
        require_finite(parameter, f"the checkpoint's tensor {name}", param="model")
    stored = stored_type(facts.dtypes)
    _check_padding(model, processor, task_type)
    embedder = load_embedder(folder, recipe, model, processor, device) if recipe is not None else None
    return TaskModel(model, processor, task_type, family_of(task_type), folder, stored, embedder, pages)


def reason_of(error: Exception, *folders: Path) -> str:
    """Return the first line of an error of transformers, without the place where the server keeps the model."""
    lines = str(error).splitlines()
    line = lines[0] if lines else type(error).__name__
    for folder in folders:
        line = line.replace(str(folder), "the model's folder")
    return line[:200]


def _load_whole(folder: Path, task_type: TaskType, device: torch.device) -> tuple[PreTrainedModel, dict[str, Any]]:
    import transformers

    auto_class: Any = getattr(transformers, AUTO_CLASSES[task_type])
    model, info = auto_class.from_pretrained(
        folder,
        config=load_config(folder, torch.float32),
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    return model.requires_grad_(False).eval().to(device), info


def _load_renamed(
    folder: Path, task_type: TaskType, facts: CheckpointFacts, device: torch.device
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a checkpoint whose tensors have other names in its files. transformers is given copies under their own names.

    Its ``key_mapping`` would do the same, and put the wrappers into the names again when the pruned model is saved.
    """
    model_class, config = class_and_config(folder, AUTO_CLASSES[task_type])
    model, info = model_class.from_pretrained(
        None,
        config=config,
        state_dict={name: stored.mapped().clone() for name, stored in map_tensors(facts).items()},
        dtype=torch.float32,
        output_loading_info=True,
        generation_config=generation_config_of(folder),
    )
    return model.requires_grad_(False).eval().to(device), info


def _load_processor(folder: Path, task_type: TaskType) -> PreTrainedTokenizerBase:
    """Load the tokenizer, or the image processor, which `TaskModel` keeps in the same field."""
    import transformers

    images = KINDS[task_type].reads == "image"
    kind: Any = transformers.AutoImageProcessor if images else transformers.AutoTokenizer
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises Exception itself
        raise_if_exhausted(error, "the tokenizer or image processor was loaded")
        lacking = [] if images else _lacking_packages(folder)
        if lacking:
            raise ModelUnreadable(
                f"the model's tokenizer is a file of SentencePiece's alone, and reading it needs {' and '.join(lacking)}, "
                "not installed here: pip install sentencepiece protobuf",
                param="model",
            ) from error
        what = "image processor" if images else "tokenizer"
        raise ModelUnreadable(
            f"the checkpoint has no {what} that transformers can load; put its {what} files beside the weights", param="model"
        ) from error


def _lacking_packages(folder: Path) -> list[str]:
    """List the packages that a tokenizer without tokenizer.json needs and that are not here."""
    if (folder / "tokenizer.json").is_file() or not any((folder / name).is_file() for name in SENTENCEPIECE_NAMES):
        return []
    packages = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
    return [name for name, module in packages.items() if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it would lie in
        return False


def _check_padding(model: PreTrainedModel, processor: PreTrainedTokenizerBase, task_type: TaskType) -> None:
    """Check that texts of several lengths can share a batch.

    Raises:
        ModelUnreadable: The tokenizer has no padding token; or the model classifies by the last real token, and its config
            does not say which token is padding.
    """
    if KINDS[task_type].reads == "image":
        return
    if processor.pad_token_id is None:
        if KINDS[task_type].pads or processor.eos_token_id is None:
            raise ModelUnreadable(NO_PADDING, param="model")
        # No real token of a causal model attends to the padding behind it, so any token will do.
        processor.pad_token = processor.eos_token
    reads_last = type(model).__name__.endswith("ForSequenceClassification") and hasattr(model, "score")
    if reads_last and model.config.pad_token_id is None:
        raise ModelUnreadable(NO_PADDING_INDEX, param="model")


def _check_complete(missing: list[str], task_type: TaskType) -> None:
    """Refuse a checkpoint without weights that transformers would then draw at random. An unread pooler may be missing."""
    # The bare model is only used for embeddings, which are pooled from the tokens' hidden states and not by its own pooler.
    needed = [key for key in missing if not (AUTO_CLASSES[task_type] == "AutoModel" and "pooler" in key)]
    if needed:
        raise lacks_weights(task_type, ", ".join(sorted(needed)[:3]))


@contextmanager
def quiet_transformers() -> Generator[None]:
    """Silence transformers' own progress bars and load reports: whatever matters in them becomes one of our errors."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
