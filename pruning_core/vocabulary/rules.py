"""The rules of a tokenizer, as its library writes them down, and what follows from them for its tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

from tokenizers import Tokenizer

from pruning_core.errors import ModelUnreadable
from pruning_core.spec.vocabulary import PARAM

_BYTE = "<0x"
_WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # of SentencePiece


def _bytes_as_letters() -> dict[str, int]:
    """Return the letters that byte-level tokenizers write bytes as: printable ones stand for themselves (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_LETTERS = _bytes_as_letters()


@dataclass(frozen=True)
class Rules:
    """A tokenizer and its rules.

    Attributes:
        tokenizer: The tokenizer of the library `tokenizers`.
    """

    tokenizer: Tokenizer

    @cached_property
    def whole(self) -> dict[str, Any]:
        """The rules, as in tokenizer.json."""
        return cast("dict[str, Any]", json.loads(self.tokenizer.to_str()))

    @property
    def model(self) -> dict[str, Any]:
        """The rules of the part that knows the vocabulary."""
        return cast("dict[str, Any]", self.whole["model"])

    @property
    def kind(self) -> str:
        """BPE, Unigram, WordPiece or WordLevel."""
        return str(self.model["type"])

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of each token, of those that were added, too."""
        return self.tokenizer.get_vocab(with_added_tokens=True)

    @cached_property
    def own(self) -> dict[str, int]:
        """Id of each token of the vocabulary alone."""
        return self.tokenizer.get_vocab(with_added_tokens=False)

    @cached_property
    def added(self) -> frozenset[str]:
        """Tokens that were added: special ones, and others that texts spell out."""
        return frozenset(str(entry["content"]) for entry in self.whole["added_tokens"])

    @cached_property
    def spells_bytes(self) -> bool:
        """Whether tokens are written in letters that stand for bytes."""
        return any('"ByteLevel"' in json.dumps(self.whole[part]) for part in ("pre_tokenizer", "decoder"))

    @cached_property
    def has_bytes(self) -> bool:
        """Whether characters without a token are spelt by tokens of bytes, such as ``<0xE2>``."""
        return bool(self.model.get("byte_fallback")) and f"{_BYTE}00>" in self.ids

    def fallback(self) -> set[str]:
        """Return the tokens that spell what has no other: all bytes, or else all characters; and what the rules name."""
        if self.spells_bytes:
            found = {token for token in self.own if token in BYTE_LETTERS}
        elif self.has_bytes:
            found = {token for token in self.own if len(token) == len("<0x00>") and token.startswith(_BYTE)}
        else:
            prefix, suffix = self._affixes
            found = {token for token in self.own if len(token.removeprefix(prefix).removesuffix(suffix)) == 1}
        found |= self.own.keys() & {_WORD_START, self.model.get("unk_token")}
        if self.kind == "Unigram":
            pieces = cast("list[tuple[str, float]]", self.model["vocab"])
            unknown = self.model.get("unk_id")
            # What an unknown character costs hangs on the least score of all.
            found |= {min(pieces, key=lambda piece: piece[1])[0], *([] if unknown is None else [pieces[unknown][0]])}
        return found

    @property
    def _affixes(self) -> tuple[str, str]:
        """What marks a token that goes on from another, and one that ends a word; empty where nothing does."""
        return self.model.get("continuing_subword_prefix") or "", self.model.get("end_of_word_suffix") or ""

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {(left, right): rank for rank, (left, right) in enumerate(cast("list[list[str]]", self.model["merges"]))}

    def with_parts(self, tokens: Iterable[str]) -> set[str]:
        """Return tokens of a BPE, and those that they are merged from, in the order of the rules. Others have no parts.

        What a text becomes depends on no further merge: at each step the first of all applicable ones is taken, and those that
        were not taken in a whole word are not taken within one token of it.
        """
        found = set(tokens)
        if self.kind != "BPE":
            return found
        prefix, suffix = self._affixes
        if prefix:
            raise ModelUnreadable(
                f"a BPE whose tokens go on with {prefix!r} cannot be cut here; leave {PARAM} out", param=PARAM
            )
        for token in tuple(found):
            if token in self.own:
                found |= self._parts_of(token, suffix)
        return found & self.own.keys() | found & self.added

    def _parts_of(self, token: str, suffix: str) -> set[str]:
        symbols = list(token)
        if suffix and token.endswith(suffix) and token != suffix:
            symbols = [*token[: -len(suffix)]]
            symbols[-1] += suffix
        found = set(symbols)
        while len(symbols) > 1:
            pairs = [self._ranks.get(pair, -1) for pair in pairwise(symbols)]
            known = [rank for rank in pairs if rank >= 0]
            if not known:
                break
            at = pairs.index(min(known))
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            found.add(symbols[at])
        return found

    def letters(self, token: str) -> str | None:
        """Return the text that a token stands for; None for part of a character."""
        prefix, suffix = self._affixes
        token = token.removeprefix(prefix).removesuffix(suffix)
        if not self.spells_bytes:
            return token.replace(_WORD_START, " ")
        try:
            return bytes(BYTE_LETTERS[letter] for letter in token).decode("utf-8")
        except (KeyError, UnicodeDecodeError):
            return None

    def cut_to(self, tokens: Collection[str], number: Mapping[int, int]) -> dict[str, Any]:
        """Return the rules with some of the tokens alone.

        Args:
            tokens: The tokens that stay.
            number: New id of each token, by its old one.
        """
        whole = cast("dict[str, Any]", json.loads(self.tokenizer.to_str()))
        model = whole["model"]
        if isinstance(model["vocab"], list):
            model["vocab"] = [piece for piece in model["vocab"] if piece[0] in tokens]
            if model.get("unk_id") is not None:
                unknown = self.model["vocab"][model["unk_id"]][0]
                model["unk_id"] = next(place for place, piece in enumerate(model["vocab"]) if piece[0] == unknown)
        else:
            ordered = sorted((old, token) for token, old in model["vocab"].items() if token in tokens)
            model["vocab"] = {token: number[old] for old, token in ordered}
        if "merges" in model:
            kept = model["vocab"]
            model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= kept.keys()]
        for entry in whole["added_tokens"]:
            entry["id"] = number[entry["id"]]
        if whole.get("padding") is not None:
            whole["padding"]["pad_id"] = number[whole["padding"]["pad_id"]]
        _renumber_(whole.get("post_processor"), lambda old: number[old])
        return whole


def _renumber_(processor: dict[str, Any] | None, new: Callable[[int], int]) -> None:
    """Give the tokens that a post-processor inserts their new ids, in place."""
    match processor:
        case {"type": "Sequence", "processors": inner}:
            for own in inner:
                _renumber_(own, new)
        case {"type": "TemplateProcessing", "special_tokens": inserted}:
            for own in inserted.values():
                own["ids"] = [new(old) for old in own["ids"]]
        case {"type": "BertProcessing" | "RobertaProcessing"}:
            for name in ("sep", "cls"):
                token, old = cast("Sequence[Any]", processor[name])
                processor[name] = [token, new(old)]
        case _:
            pass
