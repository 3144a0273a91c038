"""The task model: a checkpoint loaded for a task, with one way to run it and one kind of output a task type."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from pruning_core.arch.paging import first_names
from pruning_core.errors import ModelUnreadable
from pruning_core.inputs import is_local, read_checkpoint
from pruning_core.model_checks import stored_type
from pruning_core.paged_models import load_paged
from pruning_core.reader_checks import NO_PADDING, NO_PADDING_INDEX
from pruning_core.spec import AUTO_CLASSES, TaskType
from pruning_core.task_checks import positions_of
from pruning_core.tasks.heads import lacks_weights
from pruning_core.tasks.kinds import KINDS
from pruning_core.tasks.registry import family_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pruning_core.tasks.base import TaskFamily

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class TaskModel:
    """A model with its tokenizer, in evaluation mode, float32, no parameter requiring a gradient.

    Attributes:
        processor: The tokenizer; for images, what transformers calls an image processor.
        source: Local folder that the checkpoint was read from.
        stored_dtype: Type of the weights as stored: float32, float16 or bfloat16.
        pooling: How token states become one embedding; only for feature-extraction.
        pages: Folder for what the weights of paged blocks are replaced by; None where all weights are in memory.
    """

    model: PreTrainedModel
    processor: PreTrainedTokenizerBase
    task_type: TaskType
    source: Path
    stored_dtype: str
    pooling: Pooling
    pages: Path | None = None

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the model.

        Args:
            inputs: What the model takes, each (batch, ...).

        Returns:
            What the task stands on: logits (batch, classes), scores (batch, 1), embeddings of unit length (batch, hidden), or
            logits for every token (batch, length, entries).
        """
        return self.family.outputs(self, inputs)

    @property
    def family(self) -> TaskFamily:
        """What the task computes."""
        return family_of(self.task_type)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, of models that read text."""
        return self.processor

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the model's head, by index."""
        config = self.model.config
        count = config.num_labels or 0
        names = cast("dict[int, str]", config.id2label or {})
        return tuple(names.get(index, f"LABEL_{index}") for index in range(count))

    @property
    def entries(self) -> int:
        """Size of the output for every token, where there is one: the vocabulary, or the number of tags; 1 for other tasks."""
        head = self.model.get_output_embeddings()
        return max(1, cast("torch.nn.Embedding", head).weight.shape[0] if head is not None else 1)

    def longest(self, wanted: int) -> int:
        """Cut a length in tokens to what the tokenizer and the model's positions allow."""
        limits = [wanted, positions_of(self.model.config.to_dict()), getattr(self.processor, "model_max_length", None)]
        return min(limit for limit in limits if limit is not None)

    def input_length(self, wanted: int) -> int:
        """Give the length in tokens of inputs that are timed: an image has as many as it has."""
        return self.family.input_length(self, wanted)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.device

    def with_model(self, model: PreTrainedModel) -> TaskModel:
        """Give the same task and tokenizer around another model."""
        return dataclasses.replace(self, model=model)

    def parameter_count(self) -> int:
        """Count the values that a checkpoint stores: tied ones once, and no tables that are computed (sines)."""
        computed = self.model._keys_to_ignore_on_save or ()  # pyright: ignore[reportPrivateUsage] - theirs, and the only list
        state = cast("dict[str, Tensor]", self.model.state_dict())
        first = first_names(self.model)
        return sum(own.numel() for name, own in state.items() if first[name] == name and name not in computed)


def resolve_checkpoint(reference: str, revision: str | None) -> Path:
    """Give the local folder of a checkpoint, from the Hub's cache or the Hub itself where it is not a path.

    Raises:
        ModelUnreadable: Unknown to the Hub, or not in the cache while offline.
    """
    if is_local(reference):
        return Path(reference).expanduser()
    import huggingface_hub

    patterns = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "1_Pooling/*", "LICENSE*"]
    try:
        return Path(huggingface_hub.snapshot_download(reference, revision=revision, allow_patterns=patterns))
    except Exception as error:  # network, authorisation and cache errors share no base class
        raise ModelUnreadable(
            f"model {reference!r} could not be fetched from the Hub ({type(error).__name__}); check the name, or give a "
            "local folder",
            param="model",
        ) from error


def load_task_model(folder: Path, task_type: TaskType, device: torch.device, *, pages: Path | None = None) -> TaskModel:
    """Load a checkpoint for a task. Never runs remote code, never reads pickle.

    Args:
        folder: The checkpoint.
        task_type: Says which class of transformers loads it.
        device: Where it runs.
        pages: Folder for what weights are replaced by, where those of the blocks are to stay in the checkpoint's files until
            they are needed; None loads all of them.

    Raises:
        ModelUnreadable: Missing or corrupt files, no head for the task, no tokenizer.
        UnsupportedArchitecture: The weights cannot stay in the files.
    """
    facts = read_checkpoint(folder)
    with quiet_transformers():
        try:
            if pages is None:
                model, info = _load_whole(folder, task_type, device)
            else:
                model, info = load_paged(folder, AUTO_CLASSES[task_type], facts, device, pages)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ModelUnreadable(f"transformers cannot load the checkpoint: {reason}", param="model") from error
        processor = _load_processor(folder, task_type)
    _check_complete(info["missing_keys"], task_type)
    stored = stored_type(facts.dtypes)
    _check_padding(model, processor, task_type)
    return TaskModel(model, processor, task_type, folder, stored, _pooling_of(folder), pages)


def _load_whole(folder: Path, task_type: TaskType, device: torch.device) -> tuple[PreTrainedModel, dict[str, Any]]:
    import transformers

    auto_class: Any = getattr(transformers, AUTO_CLASSES[task_type])
    model, info = auto_class.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    return model.requires_grad_(False).eval().to(device), info


def _load_processor(folder: Path, task_type: TaskType) -> PreTrainedTokenizerBase:
    """Load the tokenizer, or the image processor, which is used behind the same name."""
    import transformers

    images = KINDS[task_type].reads == "image"
    kind: Any = transformers.AutoImageProcessor if images else transformers.AutoTokenizer
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        what = "image processor" if images else "tokenizer"
        raise ModelUnreadable(
            f"the checkpoint has no {what} that transformers can load; put its {what} files beside the weights", param="model"
        ) from error


def _check_padding(model: PreTrainedModel, processor: PreTrainedTokenizerBase, task_type: TaskType) -> None:
    """See that texts of several lengths can share a batch.

    Raises:
        ModelUnreadable: There is no token to pad with, or a decoder that reads its answer off the last token is not told which
            one is padding.
    """
    if KINDS[task_type].reads == "image":
        return
    if processor.pad_token_id is None:
        if task_type != "text-generation" or processor.eos_token_id is None:
            raise ModelUnreadable(NO_PADDING, param="model")
        # Nothing that counts ever looks at what stands behind it.
        processor.pad_token = processor.eos_token
    reads_last = type(model).__name__.endswith("ForSequenceClassification") and hasattr(model, "score")
    if reads_last and model.config.pad_token_id is None:
        raise ModelUnreadable(NO_PADDING_INDEX, param="model")


def _check_complete(missing: list[str], task_type: TaskType) -> None:
    """Refuse weights that transformers would fill with random numbers; a pooler that nothing reads may be missing."""
    # Only embeddings are read off the bare model, and they are pooled from the tokens' states.
    needed = [key for key in missing if not (AUTO_CLASSES[task_type] == "AutoModel" and "pooler" in key)]
    if needed:
        raise lacks_weights(task_type, ", ".join(sorted(needed)[:3]))


def _pooling_of(folder: Path) -> Pooling:
    """Read sentence-transformers' pooling mode; mean where the checkpoint does not say."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("pooling_mode_cls_token") or config.get("pooling_mode") == "cls":
        return "cls"
    if config.get("pooling_mode_mean_tokens", True) or config.get("pooling_mode") == "mean":
        return "mean"
    raise ModelUnreadable("only mean and cls pooling are supported for feature-extraction", param="model")


@contextmanager
def quiet_transformers() -> Generator[None]:
    """Silence transformers' own progress bars and load reports: what matters in them becomes an error of ours."""
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
