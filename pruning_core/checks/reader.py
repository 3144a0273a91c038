"""Checks of input files: a checkpoint has a tokenizer or image processor, an image folder holds images. Torch-free."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pruning_core.arch.signatures import BlockSignature
from pruning_core.checks.embedder import is_embedding
from pruning_core.checks.recipe import read_recipe
from pruning_core.data.chats import NO_TEMPLATE
from pruning_core.data.faults import check_name, no_image
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.files.companions import IMAGE_PROCESSOR_NAMES, TOKENIZER_NAMES
from pruning_core.files.paths import IMAGE_SUFFIXES
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS, finding_of

_IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
_MOST_IMAGES = 1000

NO_PADDING = (
    "the tokenizer has no padding token, so texts of several lengths cannot share a batch; name one as pad_token in "
    "tokenizer_config.json"
)
NO_PADDING_INDEX = (
    "the model's config has no pad_token_id, by which a decoder finds the last token of a text; set it in config.json to the "
    "tokenizer's"
)
NO_MASK = (
    "the tokenizer has no mask token, so its model cannot fill masks; give a masked language model, or choose "
    "task.type text-generation"
)
# Model types whose default configuration has no padding token, and tokenizer classes that have none by default.
_WITHOUT_PADDING = frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3"})
_OF_ANY_TYPE = frozenset({"PreTrainedTokenizerFast", "TokenizersBackend"})
_PLAIN_TOKENIZERS = _OF_ANY_TYPE | frozenset(
    {
        "GPT2Tokenizer",
        "GPT2TokenizerFast",
        "LlamaTokenizer",
        "LlamaTokenizerFast",
    }
)
# Model types for which transformers takes another tokenizer than the files name.
_OVERRIDDEN = frozenset({"qwen2", "qwen3"})
_LARGEST_BYTES = 64 * 2**20
_FEWEST_TOKENS = 8


def check_reader(task: TaskSpec, folder: Path) -> None:
    """Check that a model has an image processor if its task reads images, and a tokenizer otherwise.

    Raises:
        ModelUnreadable: It has none.
    """
    wanted = IMAGE_PROCESSOR_NAMES if KINDS[task.type].reads == "image" else TOKENIZER_NAMES
    if not any((folder / name).is_file() for name in wanted):
        what = "image processor" if KINDS[task.type].reads == "image" else "tokenizer"
        raise ModelUnreadable(
            f"the model folder has no {what}; put its files ({', '.join(wanted[:3])}, ...) beside the weights",
            param="model",
        )


def check_longest(task: TaskSpec, folder: Path) -> None:
    """Check that a tokenizer does not cut every text to nothing.

    Raises:
        ModelUnreadable: It does.
    """
    if KINDS[task.type].reads == "image" or (is_embedding(task.type) and read_recipe(folder).most_tokens is not None):
        return
    stated: object = (_read_json(folder / "tokenizer_config.json") or {}).get("model_max_length")
    if type(stated) in (int, float) and not cast("float", stated) >= _FEWEST_TOKENS:  # NaN is not
        raise ModelUnreadable(
            f"tokenizer_config.json: model_max_length is {stated}, and must be a number from {_FEWEST_TOKENS}, the tokens of "
            "the longest text; leave it out for none",
            param="model",
        )


def check_writing(task: TaskSpec, folder: Path) -> None:
    """Check that a model which writes texts knows how they begin: of two files, transformers reads the first that is there.

    Raises:
        ModelUnreadable: generation_config.json does not say it.
    """
    if not KINDS[task.type].takes_prefix or finding_of(task.type, task.metric) != "texts":
        return
    said = _read_json(folder / "generation_config.json")
    if said is not None and not any(type(said.get(name)) is int for name in ("decoder_start_token_id", "bos_token_id")):
        raise ModelUnreadable(
            "generation_config.json names no decoder_start_token_id, with which a text begins; take it over from config.json, "
            "or leave the file out",
            param="model",
        )


def check_padding(task: TaskSpec, folder: Path, config: Mapping[str, Any], family: BlockSignature) -> None:
    """Check that texts of several lengths can share a batch, as far as the files tell. The job asks the tokenizer itself.

    Raises:
        DatasetInvalid: The task is to fill masks, and the tokenizer has none.
        ModelUnreadable: The tokenizer has no padding token, or the config of a decoder that needs it has no ``pad_token_id``.
    """
    model_type: object = config.get("model_type")
    if KINDS[task.type].reads == "image":
        return
    if task.type == "fill-mask" and _lacks(folder, "mask_token", _OF_ANY_TYPE):
        raise DatasetInvalid(NO_MASK, param="task.type")
    if not KINDS[task.type].pads:  # padding is read by nobody, and the token that ends a text will do
        if all(_lacks(folder, name, _OF_ANY_TYPE) for name in ("eos_token", "pad_token")):
            raise ModelUnreadable(NO_PADDING, param="model")
        return
    named = _PLAIN_TOKENIZERS if model_type in _WITHOUT_PADDING else _OF_ANY_TYPE
    if model_type not in _OVERRIDDEN and _lacks(folder, "pad_token", named):
        raise ModelUnreadable(NO_PADDING, param="model")
    reads_last = family.causal and KINDS[task.type].loads_as == "AutoModelForSequenceClassification"
    if reads_last and config.get("pad_token_id") is None:
        raise ModelUnreadable(NO_PADDING_INDEX, param="model")


def _lacks(folder: Path, name: str, classes: Collection[str]) -> bool:
    """Return whether the files of a tokenizer of one of the classes prove that it does not have a special token."""
    said = _read_json(folder / "tokenizer_config.json")
    if said is None or said.get("tokenizer_class") not in classes or said.get(name) is not None:
        return False
    others = folder / "special_tokens_map.json"
    if others.is_file() and ((named := _read_json(others)) is None or named.get(name) is not None):
        return False
    whole = _read_json(folder / "tokenizer.json")
    return whole is not None and whole.get("padding") is None


def check_chat_template(folder: Path) -> None:
    """Check that a model's tokenizer has a template that makes texts of chats.

    Raises:
        DatasetInvalid: It has none.
    """
    named = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    if not any((folder / name).exists() for name in named):
        said = _read_json(folder / "tokenizer_config.json")
        if said is not None and not said.get("chat_template"):
            raise DatasetInvalid(NO_TEMPLATE, param="task.columns.text")


def _read_json(path: Path) -> Mapping[str, Any] | None:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return None
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, MemoryError):  # what cannot be read here, the job reads
        return None
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else None


def check_image_folder(folder: Path, names: Sequence[str]) -> None:
    """Check that a split's folder holds images by class, and that its first images begin with the bytes of an image format.

    Args:
        folder: Folder of the split.
        names: Class names of the model; empty where unknown.

    Raises:
        DatasetInvalid: The folder has no images, a file is not an image, or the model does not have one of the classes.
    """
    classes = [one for one in sorted(folder.iterdir()) if one.is_dir()]
    images = list(itertools.islice((path for own in classes for path in _images(own)), _MOST_IMAGES))
    if not images:
        raise DatasetInvalid(
            f"the folder {folder.name} holds no images; put them in one folder a class, named {', '.join(IMAGE_SUFFIXES)}",
            param="task.dataset",
        )
    for own in classes if names else ():
        check_name(own.name, names)
    for path in images:
        try:
            with path.open("rb") as file:
                start = file.read(8)
        except OSError:
            raise DatasetInvalid(f"the image {path.name} cannot be read", param="task.dataset") from None
        if not start.startswith(_IMAGE_STARTS):
            raise no_image(f"{folder.name}/{path.parent.name}/{path.name}", "it does not begin like one")


def _images(folder: Path) -> Iterator[Path]:
    """Yield the images of a class by name. Only names are held, as a folder may have a million."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES))  # noqa: PTH208 - as above
    return (folder / name for name in names)
