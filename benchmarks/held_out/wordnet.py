"""WordNet's nouns, read from the file ``data.noun`` of Debian's package ``wordnet-base``; a gloss's lexical class as a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.held_out.rows import Labelled, Size, Splits, classified

# Names of the lexicographers' files by number (lexnames(5WN)); 3, the few top concepts, is no class.
LEXICAL_CLASSES = {
    4: "act",
    5: "animal",
    6: "artifact",
    7: "attribute",
    8: "body",
    9: "cognition",
    10: "communication",
    11: "event",
    12: "feeling",
    13: "food",
    14: "group",
    15: "location",
    16: "motive",
    17: "object",
    18: "person",
    19: "phenomenon",
    20: "plant",
    21: "possession",
    22: "process",
    23: "quantity",
    24: "relation",
    25: "shape",
    26: "state",
    27: "substance",
    28: "time",
}


@dataclass(frozen=True, slots=True)
class Synset:
    """One concept.

    Attributes:
        offset: Its name in the file.
        file: Number of the lexicographers' file.
        lemma: Its first word.
        definition: The gloss without its examples, which would name the word.
        parent: Offset of the first concept above it, None for the root.
    """

    offset: str
    file: int
    lemma: str
    definition: str
    parent: str | None


def read_nouns(lines: Iterable[str]) -> dict[str, Synset]:
    """Read ``data.noun`` (wndb(5WN)). Lines that begin with a space are its licence."""
    return {synset.offset: synset for synset in map(_read, (line for line in lines if line[:1].isdigit()))}


def _read(line: str) -> Synset:
    data, _, gloss = line.partition(" | ")
    fields = data.split()
    words = int(fields[3], 16)
    pointers = fields[5 + 2 * words :]
    above = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in {"@", "@i"}]
    definition = gloss.split('; "')[0].strip()
    return Synset(fields[0], int(fields[1]), fields[4].replace("_", " "), definition, above[0] if above else None)


def glosses(nouns: Mapping[str, Synset], size: Size) -> Splits:
    """Make the task: a noun's definition, without the noun, to its lexical class. Split by synset."""
    named = [noun for noun in nouns.values() if noun.file in LEXICAL_CLASSES and noun.definition]
    return classified([Labelled(noun.offset, noun.definition, LEXICAL_CLASSES[noun.file]) for noun in named], size)
