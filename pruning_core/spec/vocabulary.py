"""`VocabularySpec`: which tokens of the vocabulary stay. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.nearest import nearest

PARAM = "vocabulary"
KEEP, TEXTS = f"{PARAM}.keep", f"{PARAM}.texts"

# The scripts of Unicode that languages are written in, under the codes of ISO 639. Languages of one script cannot be told apart
# by their tokens: "en" keeps what "de" keeps.
_WRITTEN_IN: Mapping[str, str] = {
    "Latin": "af az ca cs cy da de en es et eu fi fil fr ga gl hr hu id is it lt lv ms mt nb nl nn no pl pt ro sk sl sq sv sw "
    "tr uz vi",
    "Cyrillic": "be bg kk ky mk mn ru sr tg uk",
    "Arabic": "ar fa ps ur",
    "Devanagari": "hi mr ne",
    "Han": "zh",
    "Han Hiragana Katakana": "ja",
    "Hangul Han": "ko",
    "Greek": "el",
    "Hebrew": "he",
    "Thai": "th",
    "Georgian": "ka",
    "Armenian": "hy",
    "Bengali": "bn",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Gujarati": "gu",
    "Gurmukhi": "pa",
    "Sinhala": "si",
    "Khmer": "km",
    "Lao": "lo",
    "Myanmar": "my",
    "Ethiopic": "am",
}
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    code: tuple(scripts.split()) for scripts, codes in _WRITTEN_IN.items() for code in codes.split()
}

_CODE = re.compile(r"[a-z]{2,3}")

Place = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024)]


class VocabularySpec(Frozen):
    """Which tokens stay.

    Those that the task's data needs always do, the special ones, and what spells all others: bytes or characters.
    """

    keep: Literal["seen"] | tuple[str, ...] | Place = Field(
        default="seen",
        description='seen: what the task\'s data needs, and no more. A list of languages such as ["en", "de"]: all tokens in '
        "their scripts, too. Or a file of tokens, in the tokenizer's own spelling: .txt with one a line, or .json with a list "
        "of them or a map such as vocab.json.",
    )
    texts: Place | None = Field(
        default=None,
        description="Texts whose tokens stay, too: a file (.txt, or .jsonl with a text in each line), a folder of such files, "
        "or the id of an upload.",
    )

    @field_validator("keep", mode="before")
    @classmethod
    def _read(cls, keep: object) -> object:
        return keep_of(keep) if isinstance(keep, str) else keep

    @field_validator("keep")
    @classmethod
    def _known(cls, keep: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(keep, str):
            return keep
        if not keep:
            raise ValueError('name a language, such as ["en"], or leave the field out to keep what the data needs')
        for code in keep:
            if code not in SCRIPTS:
                like = nearest(code, list(SCRIPTS))
                meant = f"; did you mean {like}?" if like is not None else ""
                raise ValueError(f"no language {code[:16]!r} is known here; known are {', '.join(sorted(SCRIPTS))}{meant}")
        return tuple(sorted(set(keep)))  # equal specs mean equal work

    @property
    def written(self) -> str:
        """The choice as people write it."""
        return self.keep if isinstance(self.keep, str) else ", ".join(self.keep)

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages whose scripts stay."""
        return self.keep if isinstance(self.keep, tuple) else ()

    @property
    def scripts(self) -> frozenset[str]:
        """The scripts that stay, by their names in Unicode."""
        return frozenset(script for code in self.languages for script in SCRIPTS[code])

    @property
    def tokens_file(self) -> str | None:
        """Place of the file of tokens; None where there is none."""
        return self.keep if isinstance(self.keep, str) and self.keep != "seen" else None

    @property
    def places(self) -> dict[str, str]:
        """What is read, by the dotted path of its field."""
        found = {KEEP: self.tokens_file, TEXTS: self.texts}
        return {param: place for param, place in found.items() if place is not None}

    def at(self, places: Mapping[str, str]) -> VocabularySpec:
        """Return the same choice with other places, by the dotted paths of their fields; others stay."""
        own = {**self.places, **places}
        return self.but(keep=own.get(KEEP, self.keep), texts=own.get(TEXTS))


def keep_of(written: str) -> str | list[str]:
    """Read ``seen``, languages as people write them (``en, de``), or the place of a file of tokens."""
    parts = [part.strip() for part in written.split(",")]
    return parts if written.strip() != "seen" and all(map(_CODE.fullmatch, parts)) else written


def _expand(value: object) -> object:
    """Turn ``"seen"`` and ``"en, de"`` into the full form."""
    return {"keep": value} if isinstance(value, str) else value


Vocabulary = Annotated[VocabularySpec | None, BeforeValidator(_expand, json_schema_input_type=str | VocabularySpec | None)]
