"""Similarity of two nouns, with their definitions, scored by Wu and Palmer (ACL 1994) in WordNet's taxonomy.

The taxonomy is the tree of first hypernyms. Pairs of distant nouns alone would teach little: for each noun an ancestor is
drawn, and the other noun from below it, so that all distances occur.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.held_out.rows import Splits, held_out, in_order
from benchmarks.held_out.wordnet import Synset


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """A tree.

    Attributes:
        path: The concepts from the root to each one, itself included.
        entered: Number of each concept in a walk that visits a concept before what stands below it.
        left: Number of the first concept after all those below it.
    """

    path: Mapping[str, tuple[str, ...]]
    entered: Mapping[str, int]
    left: Mapping[str, int]

    @classmethod
    def of(cls, nouns: Mapping[str, Synset]) -> Taxonomy:
        """Walk the tree of first hypernyms."""
        below: dict[str | None, list[str]] = defaultdict(list)
        for noun in sorted(nouns.values(), key=lambda noun: noun.offset):
            below[noun.parent].append(noun.offset)
        path: dict[str, tuple[str, ...]] = {}
        entered: dict[str, int] = {}
        left: dict[str, int] = {}
        waiting: list[tuple[str, tuple[str, ...], bool]] = [(root, (), False) for root in reversed(below[None])]
        while waiting:
            offset, above, done = waiting.pop()
            if done:
                left[offset] = len(entered)
                continue
            entered[offset], path[offset] = len(entered), (*above, offset)
            waiting.append((offset, above, True))
            waiting += [(child, path[offset], False) for child in reversed(below[offset])]
        return cls(path, entered, left)

    def similarity(self, first: str, second: str) -> float:
        """Return Wu and Palmer's similarity: twice the depth of the deepest common ancestor by the sum of both depths."""
        one, other = self.path[first], self.path[second]
        common = sum(a == b for a, b in zip(one, other, strict=False))
        return 2 * common / (len(one) + len(other))


def pairs(nouns: Mapping[str, Synset], *, train: int = 6000, validation: int = 1500) -> Splits:
    """Make the task. Split by synset: no noun of a pair that is held out is in one to learn from."""
    taxonomy = Taxonomy.of(nouns)
    once = {nouns[offset].definition.casefold(): offset for offset in sorted(taxonomy.path, reverse=True)}
    named = [offset for offset in once.values() if nouns[offset].definition]
    learnt, judged = (
        _pairs(nouns, taxonomy, [offset for offset in named if held_out(offset) == split], most)
        for split, most in ((False, train), (True, validation))
    )
    return Splits(learnt, judged)


def _pairs(nouns: Mapping[str, Synset], taxonomy: Taxonomy, own: list[str], most: int) -> list[dict[str, object]]:
    """Draw a partner for each of some nouns: from below an ancestor that is drawn among all of the noun's."""
    rng = random.Random(0)  # noqa: S311 - rows of a benchmark, no secret
    walked = sorted(own, key=lambda offset: taxonomy.entered[offset])
    places = [taxonomy.entered[offset] for offset in walked]
    rows: list[dict[str, object]] = []
    for first in in_order(own):
        ancestor = rng.choice(taxonomy.path[first])
        start, end = (bisect_left(places, place) for place in (taxonomy.entered[ancestor], taxonomy.left[ancestor]))
        second = walked[rng.randrange(start, end)]
        if second != first:
            score = round(taxonomy.similarity(first, second), 4)
            rows.append({"first": _words(nouns[first]), "second": _words(nouns[second]), "score": score})
        if len(rows) == most:
            break
    return rows


def _words(noun: Synset) -> str:
    return f"{noun.lemma}: {noun.definition}"
