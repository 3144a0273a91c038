"""The tokenizer of a checkpoint as llama.cpp reads it: tokens, their types, merges or scores, and special ids.

What is read is what the `tokenizers` library would do (its own JSON form), however the tokenizer is stored. Rules that
llama.cpp has no word for are refused by name.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from gguf import Keys, TokenType

from pruning_core.artifacts.exports.gguf.base import NotHeld, Value
from pruning_core.artifacts.exports.gguf.splits import split_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LOWER, _ACCENTS = "tokenizer.ggml.normalizer.lowercase", "tokenizer.ggml.normalizer.strip_accents"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"
_SPECIAL: Mapping[str, str] = {
    "bos_token_id": Keys.Tokenizer.BOS_ID,
    "eos_token_id": Keys.Tokenizer.EOS_ID,
    "unk_token_id": Keys.Tokenizer.UNK_ID,
    "sep_token_id": Keys.Tokenizer.SEP_ID,
    "pad_token_id": Keys.Tokenizer.PAD_ID,
    "mask_token_id": Keys.Tokenizer.MASK_ID,
}


def _never(_text: str) -> bool:
    return False


def _begins_with_space(text: str) -> bool:
    return text.startswith(" ")


def _has_vowel_signs(text: str) -> bool:
    return any(unicodedata.category(letter) == "Mc" for letter in text)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer for llama.cpp.

    Attributes:
        values: Keys of the file's head that describe it.
        notes: What users should know of it.
        differs: Whether a text is one of which llama.cpp is known to make other tokens, as the notes say.
    """

    values: Mapping[str, Value]
    notes: tuple[str, ...] = ()
    differs: Callable[[str], bool] = _never


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the `tokenizers` library does, and the number of rows of the embeddings."""

    own: Mapping[str, Any]
    rows: int

    @property
    def model(self) -> Mapping[str, Any]:
        return self.own["model"]

    @property
    def normalizers(self) -> list[Mapping[str, Any]]:
        return _flat(self.own.get("normalizer"), "normalizers")

    @property
    def splitters(self) -> list[Mapping[str, Any]]:
        return _flat(self.own.get("pre_tokenizer"), "pretokenizers")

    @property
    def added(self) -> dict[int, Mapping[str, Any]]:
        return {token["id"]: token for token in self.own.get("added_tokens", [])}

    @property
    def merges(self) -> list[tuple[str, str]]:
        given = cast("list[str | list[str]]", self.model.get("merges") or [])
        pairs = [own.split(" ", 1) if isinstance(own, str) else own for own in given]
        return [(first, second) for first, second in pairs]


def _flat(step: object, inner: str) -> list[Mapping[str, Any]]:
    if not isinstance(step, Mapping):
        return []
    own = cast("Mapping[str, Any]", step)
    return [part for each in own[inner] for part in _flat(each, inner)] if own["type"] == "Sequence" else [own]


def vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, ends: Sequence[int] = ()) -> Vocabulary:
    """Describe a tokenizer.

    Args:
        tokenizer: The checkpoint's tokenizer.
        rows: Number of rows of the embeddings; tokens that nobody makes fill what the tokenizer leaves.
        ends: Tokens that end a generation, besides the tokenizer's own.

    Raises:
        NotHeld: llama.cpp would make other tokens, or none.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise NotHeld("the tokenizer is none of the library tokenizers (a tokenizer.json), of which llama.cpp's form is made")
    rules = _Rules(json.loads(backend.to_str()), rows)
    model, levels = rules.model["type"], {own["type"] for own in rules.splitters}
    if model == "BPE" and "ByteLevel" in levels:
        found = _byte_level(rules)
    elif model == "BPE" and rules.model.get("byte_fallback"):
        found = _sentencepiece(rules)
    elif model == "WordPiece":
        found = _word_piece(rules)
    else:
        raise NotHeld(f"llama.cpp's form of a tokenizer of the type {model} with {_named(rules.splitters)} is not written")
    values = dict(found.values) | _special_ids(tokenizer, ends) | _added_ends(tokenizer, wordpiece=model == "WordPiece")
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        template = cast("Mapping[str, str]", template).get("default")
    if isinstance(template, str):
        values[Keys.Tokenizer.CHAT_TEMPLATE] = template
    return Vocabulary(values, found.notes, found.differs)


def _named(steps: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(own["type"]) for own in steps) or "no rules for splitting texts"


def _byte_level(rules: _Rules) -> Vocabulary:
    name = split_name(rules.own)
    if name is None:
        raise NotHeld(
            f"llama.cpp has no name for the rules by which the tokenizer splits texts ({_named(rules.splitters)}), and would "
            "make other tokens"
        )
    if rules.model.get("continuing_subword_prefix") or rules.model.get("end_of_word_suffix"):
        raise NotHeld("llama.cpp does not read byte-level tokenizers that mark parts of words by a prefix or suffix")
    others = [own for own in rules.normalizers if own["type"] != "NFC"]
    if others:
        raise NotHeld(f"the tokenizer changes texts before it reads them ({_named(others)}), which llama.cpp does not")
    notes = ("llama.cpp does not compose Unicode (NFC): texts with letters and accents apart get other tokens",)
    texts, types = _listed(rules, str)
    values: dict[str, Value] = {
        Keys.Tokenizer.MODEL: "gpt2",
        Keys.Tokenizer.PRE: name,
        Keys.Tokenizer.LIST: texts,
        Keys.Tokenizer.TOKEN_TYPE: types,
        Keys.Tokenizer.MERGES: [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in rules.merges],
    }
    return Vocabulary(values, notes if rules.normalizers else ())


def _sentencepiece(rules: _Rules) -> Vocabulary:
    """Describe pieces with byte fallback. llama.cpp merges by the score of what comes of it: here, the rank of its merge."""
    prepends = any(own["type"] == "Prepend" for own in rules.normalizers) or any(
        own["type"] == "Metaspace" and own.get("prepend_scheme", "always") != "never" for own in rules.splitters
    )
    known = {"Prepend", "Replace"}, {"Metaspace", "Split"}
    odd = [
        own
        for steps, names in zip((rules.normalizers, rules.splitters), known, strict=True)
        for own in steps
        if own["type"] not in names or not _of_spaces(own)
    ]
    if odd:
        raise NotHeld(f"the tokenizer changes or splits texts in a way that llama.cpp does not ({_named(odd)})")
    ranks: dict[str, int] = {}
    for rank, (first, second) in enumerate(rules.merges):
        ranks.setdefault(first + second, rank)
    texts, types = _listed(rules, str)
    types = [
        int(TokenType.BYTE) if kind == TokenType.NORMAL and _BYTE.fullmatch(text) else kind
        for text, kind in zip(texts, types, strict=True)
    ]
    values: dict[str, Value] = {
        Keys.Tokenizer.MODEL: "llama",
        Keys.Tokenizer.PRE: "default",
        Keys.Tokenizer.LIST: texts,
        Keys.Tokenizer.SCORES: [float(-ranks.get(text, len(ranks))) for text in texts],
        Keys.Tokenizer.TOKEN_TYPE: types,
        Keys.Tokenizer.ADD_PREFIX: prepends,
    }
    note = "llama.cpp puts a space before texts that begin with one, too: they get other tokens"
    spares = prepends and any(own["type"] == "Metaspace" for own in rules.splitters)
    return Vocabulary(values, (note,), _begins_with_space) if spares else Vocabulary(values)


def _of_spaces(step: Mapping[str, Any]) -> bool:
    """Return whether a step does to spaces what SentencePiece does, and nothing else."""
    match step["type"]:
        case "Prepend":
            return step["prepend"] == _SPACE
        case "Metaspace":
            return step["replacement"] == _SPACE
        case "Replace":
            return step["pattern"] == {"String": " "} and step["content"] == _SPACE
        case "Split":
            return step["pattern"] == {"String": " "}
        case _:
            return False


def _word_piece(rules: _Rules) -> Vocabulary:
    kinds = [own["type"] for own in (*rules.normalizers, *rules.splitters)]
    normalizer = rules.normalizers[0] if rules.normalizers else {}
    if kinds != ["BertNormalizer", "BertPreTokenizer"] or rules.model.get("continuing_subword_prefix") != "##":
        raise NotHeld(f"llama.cpp reads word pieces by BERT's rules, and the tokenizer has others ({', '.join(kinds)})")
    if not normalizer.get("clean_text", True) or not normalizer.get("handle_chinese_chars", True):
        raise NotHeld("the tokenizer keeps control characters or runs of Chinese characters, which llama.cpp's does not")
    lower, accents = bool(normalizer.get("lowercase", True)), normalizer.get("strip_accents")

    def phantom(token: str) -> str:  # llama.cpp marks the beginnings of words, and not their continuations
        return token[2:] if token.startswith("##") else _SPACE + token

    texts, types = _listed(rules, phantom)
    strips = lower if accents is None else bool(accents)
    values: dict[str, Value] = {
        Keys.Tokenizer.MODEL: "bert",
        Keys.Tokenizer.PRE: "default",
        Keys.Tokenizer.LIST: texts,
        Keys.Tokenizer.TOKEN_TYPE: types,
        _LOWER: lower,
        _ACCENTS: strips,
    }
    note = "llama.cpp strips vowel signs with the accents: texts in Devanagari and scripts like it get other tokens"
    return Vocabulary(values, (note,), _has_vowel_signs) if strips else Vocabulary(values)


def _listed(rules: _Rules, spelt: Callable[[str], str]) -> tuple[list[str], list[int]]:
    """Return texts and types of all tokens by id.

    Raises:
        NotHeld: Two tokens are the same to llama.cpp, or there are more tokens than embeddings.
    """
    added, names = rules.added, {index: token for token, index in cast("dict[str, int]", rules.model["vocab"]).items()}
    most = max((*names, *added), default=-1)
    if most >= rules.rows:
        raise NotHeld(f"the tokenizer has a token {most}, and the embeddings have {rules.rows} rows")
    texts, types = [], []
    for index in range(rules.rows):
        token = added.get(index)
        if token is not None:
            text, kind = _added(token)
        elif index in names:
            text, kind = spelt(names[index]), TokenType.NORMAL
        else:
            text, kind = f"[PAD{index}]", TokenType.UNUSED
        texts.append(text)
        types.append(int(kind))
    if len(set(texts)) < len(texts):
        raise NotHeld("two tokens of the tokenizer are the same text to llama.cpp, which does not load such files")
    return texts, types


def _added(token: Mapping[str, Any]) -> tuple[str, TokenType]:
    """Return the text and the type of an added token. Marks like <|this|> control a model, whatever the tokenizer says."""
    text = str(token["content"])
    if token["special"] or (text.startswith("<|") and text.endswith("|>")):
        return text, TokenType.CONTROL
    return text.replace(_SPACE, " "), TokenType.USER_DEFINED


def _special_ids(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> dict[str, Value]:
    ids = {key: getattr(tokenizer, name, None) for name, key in _SPECIAL.items()}
    found: dict[str, Value] = {key: index for key, index in ids.items() if isinstance(index, int)}
    others = [index for index in dict.fromkeys(ends) if index != found.get(Keys.Tokenizer.EOS_ID)]
    if others and Keys.Tokenizer.EOS_ID not in found:
        found[Keys.Tokenizer.EOS_ID] = others.pop(0)
    return found | dict(zip((Keys.Tokenizer.EOT_ID, Keys.Tokenizer.EOM_ID), others, strict=False))


def _added_ends(tokenizer: PreTrainedTokenizerBase, *, wordpiece: bool) -> dict[str, Value]:
    """Return which special tokens stand around a text, found on one.

    Raises:
        NotHeld: There are more than one on a side, or others than llama.cpp puts there.
    """
    bare = cast("list[int]", tokenizer("one", add_special_tokens=False)["input_ids"])
    whole = cast("list[int]", tokenizer("one")["input_ids"])
    starts = [place for place in range(len(whole) - len(bare) + 1) if whole[place : place + len(bare)] == bare]
    if not starts or not bare:
        raise NotHeld("special tokens change the tokens of a text, which llama.cpp can't do")
    before, after = whole[: starts[0]], whole[starts[0] + len(bare) :]
    if len(before) > 1 or len(after) > 1 or (wordpiece and not (before and after)):
        raise NotHeld(
            f"the tokenizer puts {len(before)} tokens before and {len(after)} behind a text, which llama.cpp can't do"
        )
    found: dict[str, Value] = {Keys.Tokenizer.ADD_BOS: bool(before)}
    if before:
        found[Keys.Tokenizer.BOS_ID] = before[0]
    if wordpiece:
        return found | {Keys.Tokenizer.SEP_ID: after[0], Keys.Tokenizer.ADD_SEP: True}
    if after and after[0] != tokenizer.eos_token_id:
        raise NotHeld("the tokenizer ends texts by a token that is not its end of a sequence, which llama.cpp can't do")
    return found | {Keys.Tokenizer.ADD_EOS: bool(after)}
