"""The files of a model beside its weights: one list, by which they are fetched from the Hub, and copied into a bundle.

Torch-free. What a local folder would bring into a bundle is what is fetched of a Hub id, and the other way round.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

# Files by which a folder is known to have a tokenizer. Each alone is enough for transformers to make one.
SENTENCEPIECE_NAMES = (
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "source.spm",
    "target.spm",
)
TOKENIZER_NAMES = ("tokenizer.json", "vocab.txt", "vocab.json", *SENTENCEPIECE_NAMES)
IMAGE_PROCESSOR_NAMES = ("preprocessor_config.json", "processor_config.json")
# Ranks of tiktoken, under the names by which models have them: transformers reads them by a library that is not here.
TIKTOKEN_PATTERNS = ("*.tiktoken", "tiktoken.model", "tekken.json")
_TOKENIZERS = (
    *TOKENIZER_NAMES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("merges.txt", "target_vocab.json", "bpe.codes", "dict.txt"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
)
# A module of sentence-transformers has a folder of its own, named by its place: 1_Pooling, 2_Dense, 3_Normalize.
MODULE_CONFIGS = "[0-9]*_*/config.json"
_SENTENCES = (
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    MODULE_CONFIGS,
    "[0-9]*_*/*.safetensors",
)
_OTHERS = ("generation_config.json", *IMAGE_PROCESSOR_NAMES, "video_preprocessor_config.json")
_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*")

_README = "README.md"

COMPANIONS = (*_TOKENIZERS, *_SENTENCES, *_OTHERS, *_LICENCES)
"""Patterns of the files that a bundle has from its source."""

FETCHED = (
    *COMPANIONS,
    # What is read of a model and written anew: its weights, its configuration, and the licence at the head of its card.
    *("config.json", "*.safetensors", "*.safetensors.index.json", _README),
    # What it is refused by, in words of its own.
    *("adapter_config.json", *TIKTOKEN_PATTERNS),
)
"""Patterns of the files that are fetched of a model of the Hub."""


def companions_of(folder: Path) -> Iterator[str]:
    """Yield the paths, relative to a folder, of the files that a bundle has from it, by name."""
    for name in sorted(_names(folder)):
        if any(_fits(name, pattern) for pattern in COMPANIONS):
            yield name


def copy_companions(source: Path, folder: Path, *, but: Container[str] = ()) -> None:
    """Copy what a model has beside its weights and configuration, and README.md, which names the licence.

    Args:
        source: Folder of the model.
        folder: Where to; what is there already stays as it is.
        but: Names of files that are left out.
    """
    for name in (*companions_of(source), _README):
        if name not in but and (source / name).is_file() and not (folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def module_configs(folder: Path) -> tuple[str, ...]:
    """List the configurations of sentence-transformers' modules, relative to the folder, by name."""
    return tuple(name for name in sorted(_names(folder)) if _fits(name, MODULE_CONFIGS))


def _fits(name: str, pattern: str) -> bool:
    """Return whether a relative path fits a pattern. A star stands for no slash, so that both have as many parts."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _names(folder: Path) -> Iterator[str]:
    """Yield the files of a folder, and those of the folders in it, that a pattern could name."""
    if not folder.is_dir():
        return
    inner = {pattern.partition("/")[0] for pattern in COMPANIONS if "/" in pattern}
    with os.scandir(folder) as members:
        for member in members:
            if member.is_file():
                yield member.name
            elif member.is_dir() and any(fnmatchcase(member.name, pattern) for pattern in inner):
                with os.scandir(member.path) as files:
                    yield from (f"{member.name}/{file.name}" for file in files if file.is_file())
