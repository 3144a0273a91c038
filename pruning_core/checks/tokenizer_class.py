"""Checks that the class of transformers that reads a tokenizer can make one of its vocabulary. Torch-free.

Many classes build a tokenizer of their own of the vocabulary, and leave the rest of ``tokenizer.json`` out. Of a vocabulary of
another kind some fail, and others make a tokenizer that knows no word. ``tokenizer_classes.json`` has what transformers
declares of the model types of `checks.heads`; a test compares it with transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pruning_core.checks.declared import declared
from pruning_core.errors import ModelUnreadable
from pruning_core.files.tokenizer import TokenizerFacts

# Classes that take tokenizer.json as it is.
_WHOLE = ("TokenizersBackend", "PythonBackend", "PreTrainedTokenizerFast", "PreTrainedTokenizer")


def check_tokenizer_class(folder: Path, config: Mapping[str, Any], facts: TokenizerFacts) -> None:
    """Refuse a tokenizer.json whose vocabulary is of another kind than its class builds, or that its class does not read.

    Raises:
        ModelUnreadable: It is, or the class reads other files, which are not there.
    """
    name = _reader(config, facts.stated_class)
    others = declared("tokenizer_classes")["own_files"]
    if name in others and name != declared("tokenizer_classes")["of_types"].get(str(config.get("model_type"))):
        own = cast("list[str] | None", others[name])
        if not own or not all((folder / file).is_file() for file in own):
            reads = "which is no tokenizer for this model" if not own else f"which reads {' and '.join(own)}"
            raise ModelUnreadable(
                f"the model's files name the tokenizer class {name}, {reads}; set tokenizer_class in tokenizer_config.json to "
                "PreTrainedTokenizerFast, which reads tokenizer.json",
                param="model",
            )
    needed = next((kind for kind, names in declared("tokenizer_classes")["kinds"].items() if name in names), None)
    misread = needed == "Unigram" or (needed == "BPE" and facts.kind in ("WordLevel", "WordPiece"))
    if facts.kind is not None and facts.kind != needed and misread:
        raise ModelUnreadable(
            f"transformers reads this model's tokenizer as a {name}, which needs a {needed}, and tokenizer.json holds a "
            f"{facts.kind}; set tokenizer_class in tokenizer_config.json to PreTrainedTokenizerFast, which takes any",
            param="model",
        )
    if needed == "WordPiece" and not facts.unknown_is_word:
        shown = "null" if facts.unknown is None else repr(facts.unknown[:40])
        raise ModelUnreadable(
            f"transformers reads this model's tokenizer as a {name}, which gives unknown words the token {shown} (unk_token in "
            "tokenizer_config.json), and the vocabulary has none such; name one that it has",
            param="model",
        )


def _reader(config: Mapping[str, Any], stated: str | None) -> str | None:
    """Name the class that transformers' AutoTokenizer takes; None where that is not known here."""
    known = declared("tokenizer_classes")
    model_type = config.get("model_type")
    usual = cast("dict[str, str]", known["of_types"]).get(str(model_type))
    named: object = stated or config.get("tokenizer_class")
    if not isinstance(named, str):
        return usual
    named = named.removesuffix("Fast")
    if usual in _WHOLE or (usual is not None and model_type in known["types_alone"]):
        return usual
    return named
