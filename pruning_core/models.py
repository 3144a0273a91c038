"""The task model: a checkpoint loaded for a task, with one way to run it and one kind of output a task type."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pruning_core.errors import ModelUnreadable
from pruning_core.inputs import is_local, read_checkpoint
from pruning_core.spec import AUTO_CLASSES, TaskType

if TYPE_CHECKING:
    from collections.abc import Generator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["mean", "cls"]

_DTYPE_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float32"}


@dataclass(frozen=True, slots=True)
class TaskModel:
    """A model with its tokenizer, in evaluation mode, float32, no parameter requiring a gradient.

    Attributes:
        source: Local folder that the checkpoint was read from.
        stored_dtype: Type of the weights as stored: float32, float16 or bfloat16.
        pooling: How token states become one embedding; only for feature-extraction.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task_type: TaskType
    source: Path
    stored_dtype: str
    pooling: Pooling

    def outputs(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Run the model.

        Args:
            inputs: Token tensors, each (batch, length).

        Returns:
            Logits (batch, classes), scores (batch, 1), or embeddings of unit length (batch, hidden).
        """
        return self._read(self.model(**inputs), inputs)

    def outputs_and_states(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the model; `outputs`, and the hidden states after each of its blocks, (batch, length, hidden)."""
        result = self.model(**inputs, output_hidden_states=True)
        return self._read(result, inputs), tuple(result.hidden_states[1:])

    def _read(self, result: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.task_type != "feature-extraction":
            return result.logits
        hidden = result.last_hidden_state
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1)

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.model.device

    def with_model(self, model: PreTrainedModel) -> TaskModel:
        """Give the same task and tokenizer around another model."""
        return dataclasses.replace(self, model=model)

    def parameter_count(self) -> int:
        """Count the distinct parameters (tied ones once)."""
        return sum(parameter.numel() for parameter in self.model.parameters())


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


def load_task_model(folder: Path, task_type: TaskType, device: torch.device) -> TaskModel:
    """Load a checkpoint for a task. Never runs remote code, never reads pickle.

    Raises:
        ModelUnreadable: Missing or corrupt files, no head for the task, no tokenizer.
    """
    import transformers

    facts = read_checkpoint(folder)
    auto_class: Any = getattr(transformers, AUTO_CLASSES[task_type])
    with quiet_transformers():
        try:
            model, info = auto_class.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ModelUnreadable(f"transformers cannot load the checkpoint: {reason}", param="model") from error
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelUnreadable(
                "the checkpoint has no tokenizer that transformers can load; put its tokenizer files beside the weights",
                param="model",
            ) from error
    _check_complete(info["missing_keys"], task_type)
    stored = next((name for key, name in _DTYPE_NAMES.items() if key in facts.dtypes), "float32")
    model.requires_grad_(False).eval().to(device)
    return TaskModel(model, tokenizer, task_type, folder, stored, _pooling_of(folder))


def _check_complete(missing: list[str], task_type: TaskType) -> None:
    """Refuse weights that transformers would fill with random numbers; a pooler that nothing reads may be missing."""
    needed = [key for key in missing if not (task_type == "feature-extraction" and "pooler" in key)]
    if needed:
        shown = ", ".join(sorted(needed)[:3])
        raise ModelUnreadable(
            f"the checkpoint lacks weights that a {task_type} model needs ({shown}); give a model fine-tuned for the task",
            param="model",
        )


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
