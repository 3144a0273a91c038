"""Tokenizers on disk: what their files say of their tokens, and whether transformers can make one of them. Torch-free.

Bounded: a file of tens of megabytes is read without its list of merges, which is most of it and names no token.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pruning_core.errors import ModelUnreadable
from pruning_core.files.bounded_json import JsonRefused, parse_json
from pruning_core.files.companions import SENTENCEPIECE_NAMES
from pruning_core.files.model_json import read_object
from pruning_core.files.sentencepiece import piece_count
from pruning_core.files.tokenizer_json import TokenizerRefused, check_config, check_tokenizer, named_tokens

TOKENIZER = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_OTHERS = "special_tokens_map.json"
_LARGEST_BYTES = 48 * 2**20
_LARGEST_PARSED_BYTES = 4 * 2**20  # beyond it, merges are not parsed
_LARGEST_OTHER_BYTES = 16 * 2**20
_MERGES = re.compile(rb'"merges"\s*:\s*\[')
_END = re.compile(rb"\]\s*\}\s*\}\s*\Z")
_VOCABULARY = "vocab.json"
_TARGET = "target_vocab.json"
_UNKNOWN = "[UNK]"  # of the classes that build a WordPiece
_IDLE = frozenset({"bos_token", "eos_token", "cls_token", "sep_token", "mask_token"})


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """The tokens of a tokenizer, as far as its files name them.

    Attributes:
        ends: Tokens by their ids: the last of the vocabulary, and all that were added, under the ids that they get.
        ends_of_target: The last token of the target language of a model with two vocabularies; empty for others.
        idle: Tokens of these that no text becomes unless it spells them out: the mask, and named ones that nothing inserts.
        notes: What was not looked at.
        kind: Kind of the model in tokenizer.json: BPE, Unigram, WordLevel or WordPiece; None where it is not known.
        end: Token that the files name as the end of a text.
        stated_class: Class that tokenizer_config.json names.
        unknown: Token that stands for words without one, by the same file or else as is usual; None where it is null there.
        unknown_is_word: Whether the vocabulary has it.
    """

    ends: Mapping[int, str]
    ends_of_target: Mapping[int, str]
    idle: frozenset[str]
    notes: tuple[str, ...] = ()
    kind: str | None = None
    end: str | None = None
    stated_class: str | None = None
    unknown: str | None = None
    unknown_is_word: bool = True


def read_tokenizer(folder: Path) -> TokenizerFacts:
    """Read the ids of a tokenizer's tokens, and refuse files that transformers cannot make a tokenizer of.

    Raises:
        ModelUnreadable: A file is no JSON, or not what a tokenizer's file is; the message names the file.
    """
    notes: list[str] = []
    config = _object(folder, _CONFIG)
    with _refused_as(_CONFIG):
        check_config(config)
    config = _with_others(folder, config)
    stated = _stated(folder, config)
    whole = _read_whole(folder / TOKENIZER, notes) if (folder / TOKENIZER).is_file() else None
    if whole is not None:
        with _refused_as(TOKENIZER):
            check_tokenizer(whole)
        if whole.get("padding") is not None:
            config = {"pad_token": whole["padding"]["pad_token"]} | config
    named = named_tokens(config)
    if whole is not None:
        own = [str(entry["content"]) for entry in whole["added_tokens"]]
        words = _vocabulary(whole)
        ends = _numbered(words, [*own, *stated.values(), *named])
    elif notes or any((folder / name).is_file() for name in SENTENCEPIECE_NAMES):
        # What else is added, and where, is in the code of each tokenizer's class. So the stated ids count, and no others.
        own, words = [], {}
        ends = dict(stated) | ({} if notes else _pieces(folder))
    else:
        own, words = [], _plain_vocabulary(folder)
        ends = _numbered(words, [*stated.values(), *named])
    inserted = {*own, *stated.values()}
    idle = {token for token, name in named.items() if name in _IDLE and token not in inserted}
    idle |= {token for token, name in named.items() if name == "mask_token"}
    unknown = next((token for token, name in named.items() if name == "unk_token"), None if "unk_token" in config else _UNKNOWN)
    return TokenizerFacts(
        ends=ends,
        ends_of_target=_last(_ids(folder, _TARGET)),
        idle=frozenset(idle),
        notes=tuple(notes),
        kind=None if whole is None else _kind(whole["model"]),
        end=next((token for token, name in named.items() if name == "eos_token"), None),
        stated_class=cast("str | None", config.get("tokenizer_class")),
        unknown=unknown,
        unknown_is_word=not words or unknown in words,
    )


def _kind(model: Mapping[str, Any]) -> str | None:
    """Name the kind of a tokenizer's model. Older files state none, and a WordPiece and a WordLevel may then look alike."""
    if model.get("type") is not None:
        return str(model["type"])
    if isinstance(model["vocab"], list):
        return "Unigram"
    return "BPE" if "merges" in model else None


@contextmanager
def _refused_as(name: str) -> Generator[None]:
    try:
        yield
    except TokenizerRefused as error:
        raise ModelUnreadable(f"{name}: {error}", param="model") from None


def _numbered(vocabulary: Mapping[str, int], added: Iterable[str]) -> dict[int, str]:
    """Give added tokens their ids, as the library does: the next ones, in their order, whatever ids a file states."""
    found = _last(vocabulary)
    known = set(vocabulary)
    for token in added:
        if token not in known:
            found[len(known)] = token
            known.add(token)
    return found


def _last(vocabulary: Mapping[str, int]) -> dict[int, str]:
    if not vocabulary:
        return {}
    last = max(vocabulary, key=lambda token: vocabulary[token])
    return {vocabulary[last]: last}


def _read_whole(path: Path, notes: list[str]) -> Mapping[str, Any] | None:
    """Read a tokenizer.json; None where it is too large, which is noted."""
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        notes.append(f"{TOKENIZER} has {size:,} bytes and was not looked at; the job will read it")
        return None
    try:
        data = path.read_bytes()
        if size > _LARGEST_PARSED_BYTES:
            data = _without_merges(data)
        with _no_garbage():
            found = parse_json(data)
    except JsonRefused as error:
        raise ModelUnreadable(f"{TOKENIZER} {error}; save the tokenizer again", param="model") from None
    except OSError:
        raise ModelUnreadable(f"{TOKENIZER} cannot be read", param="model") from None
    if not isinstance(found, dict):
        raise ModelUnreadable(f"{TOKENIZER} must be a JSON object", param="model")
    return cast("dict[str, Any]", found)


def _without_merges(data: bytes) -> bytes:
    """Empty the list of merges at the end of a tokenizer's file, where all writers put it."""
    starts = list(_MERGES.finditer(data))
    start = starts[-1] if starts else None
    end = _END.search(data, max(0, len(data) - 256))
    if start is None or end is None or start.end() > end.start():
        return data
    return data[: start.end()] + data[end.start() :]


@contextmanager
def _no_garbage() -> Generator[None]:
    """Keep the collector from walking over a million new lists again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _vocabulary(whole: Mapping[str, Any]) -> Mapping[str, int]:
    vocabulary = whole["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return cast("dict[str, int]", vocabulary)
    return {str(piece[0]): index for index, piece in enumerate(cast("list[list[Any]]", vocabulary))}


def _pieces(folder: Path) -> dict[int, str]:
    """Return the last piece of SentencePiece's file; of a model that has a vocabulary beside it, the last entry of that."""
    if (folder / _VOCABULARY).is_file():
        return _last(_ids(folder, _VOCABULARY))
    name = next(name for name in SENTENCEPIECE_NAMES if (folder / name).is_file())
    try:
        count = piece_count(folder / name)
    except OSError:
        raise ModelUnreadable(f"{name} cannot be read", param="model") from None
    if not count:
        raise ModelUnreadable(f"{name} is no file of SentencePiece's, or a truncated one; fetch it again", param="model")
    return {count - 1: "its last piece"}


def _plain_vocabulary(folder: Path) -> Mapping[str, int]:
    """Read a vocabulary without tokenizer.json: one token a line, or a map of ids; empty where there is none."""
    path = folder / "vocab.txt"
    if not path.is_file():
        return _ids(folder, _VOCABULARY)
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_OTHER_BYTES).decode("utf-8")
    except (OSError, ValueError):
        raise ModelUnreadable("vocab.txt is no text in UTF-8; it holds one token a line", param="model") from None
    if not text.strip():
        raise ModelUnreadable("vocab.txt is empty; it holds one token a line", param="model")
    return {token: index for index, token in enumerate(text.removesuffix("\n").split("\n"))}


def _stated(folder: Path, config: Mapping[str, Any]) -> dict[int, str]:
    """Read the tokens that were added after the tokenizer was made, by their stated ids, in the order of these.

    transformers reads added_tokens.json only where the newer entry is not there.
    """
    entries = cast("dict[str, dict[str, Any]] | None", config.get("added_tokens_decoder"))
    if entries is None:
        return dict(sorted((number, token) for token, number in _ids(folder, "added_tokens.json").items()))
    return {int(number): entries[number]["content"] for number in sorted(entries, key=int)}


def _with_others(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Put the entries of special_tokens_map.json over a configuration's, as transformers does where that is of an old form."""
    if "added_tokens_decoder" in config:
        return config
    others = _object(folder, _OTHERS)
    found = config | {
        name: cast("dict[str, Any]", value) | {"__type": "AddedToken"}
        if isinstance(value, dict) and name != "extra_special_tokens"
        else value
        for name, value in others.items()
    }
    with _refused_as(_OTHERS):
        check_config(found)
    return found


def _ids(folder: Path, name: str) -> dict[str, int]:
    """Read a map from tokens to ids; empty where the folder does not have it."""
    found = _object(folder, name)
    if not all(type(number) is int and 0 <= number < 2**31 for number in found.values()):
        raise ModelUnreadable(f"{name} must give each token an id, a whole number from 0", param="model")
    return cast("dict[str, int]", found)


def _object(folder: Path, name: str) -> dict[str, Any]:
    with _no_garbage():
        return read_object(folder, name, most_bytes=_LARGEST_OTHER_BYTES) or {}
