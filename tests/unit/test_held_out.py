"""The tasks that `make bench-headlines` makes of Debian packages: rows of made input, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.headlines import cell
from benchmarks.held_out.rows import Labelled, Size, classified, held_out
from benchmarks.held_out.sections import sections
from benchmarks.held_out.similarity import Taxonomy, pairs
from benchmarks.held_out.wordnet import LEXICAL_CLASSES, Synset, glosses, read_nouns

# As in wordnet-base: offset, lexicographers' file, kind, words with their ids, pointers, gloss.
_DATA = """\
  1 This software and database is being provided to you, the LICENSEE, by
00001740 03 n 01 entity 0 001 ~ 00002000 n 0000 | that which is perceived  
00002000 05 n 01 animal 0 001 @ 00001740 n 0000 | a living thing; "animals breathe"  
00003000 05 n 02 dog 0 domestic_dog 0 003 @ 00002000 n 0000 @ 00001740 n 0000 ~i 00005000 n 0000 | a canine; pet; "a dog!"
00004000 05 n 01 big_cat 0 001 @ 00002000 n 0000 | a feline  
00005000 18 n 01 Rex 0 001 @i 00003000 n 0000 | a dog of fame  
"""  # noqa: W291 - WordNet's lines end so


def test_nouns_are_read_with_the_first_concept_above_them_and_without_examples() -> None:
    nouns = read_nouns(_DATA.splitlines())
    assert len(nouns) == 5
    assert nouns["00003000"] == Synset("00003000", 5, "dog", "a canine; pet", "00002000")
    assert nouns["00004000"].lemma == "big cat"
    assert nouns["00005000"].parent == "00003000"
    assert nouns["00001740"].parent is None


def test_similarity_is_wu_and_palmers() -> None:
    taxonomy = Taxonomy.of(read_nouns(_DATA.splitlines()))
    # entity 1, animal 2, dog and cat 3, Rex 4 deep.
    assert taxonomy.similarity("00003000", "00004000") == pytest.approx(2 * 2 / (3 + 3))
    assert taxonomy.similarity("00005000", "00004000") == pytest.approx(2 * 2 / (4 + 3))
    assert taxonomy.similarity("00005000", "00005000") == 1
    assert taxonomy.similarity("00001740", "00005000") == pytest.approx(2 / 5)
    below_dog = {offset for offset in taxonomy.path if taxonomy.entered["00003000"] <= taxonomy.entered[offset]}
    below_dog = {offset for offset in below_dog if taxonomy.entered[offset] < taxonomy.left["00003000"]}
    assert below_dog == {"00003000", "00005000"}


def _many_nouns(count: int) -> dict[str, Synset]:
    """Return a tree of three children each, with classes by number."""
    classes = list(LEXICAL_CLASSES)
    return {
        f"{number:08}": Synset(
            f"{number:08}",
            classes[number % 3],
            f"word {number}",
            f"definition {number}",
            f"{(number - 1) // 3:08}" if number else None,
        )
        for number in range(count)
    }


def test_no_noun_of_a_pair_that_is_held_out_is_in_one_to_learn_from() -> None:
    nouns = _many_nouns(400)
    splits = pairs(nouns, train=150, validation=40)
    assert (len(splits.train), len(splits.validation)) == (150, 40)
    seen = [{row[side] for row in rows for side in ("first", "second")} for rows in (splits.train, splits.validation)]
    assert not seen[0] & seen[1]
    taxonomy = Taxonomy.of(nouns)
    offsets = {f"{noun.lemma}: {noun.definition}": noun.offset for noun in nouns.values()}
    for row in splits.validation:
        first, second = (offsets[str(row[side])] for side in ("first", "second"))
        assert first != second
        assert held_out(first)
        assert held_out(second)
        assert row["score"] == pytest.approx(taxonomy.similarity(first, second), abs=1e-4)
    assert pairs(nouns, train=150, validation=40).digest == splits.digest


def test_glosses_are_split_by_synset_up_to_a_size_of_each_class() -> None:
    splits = glosses(_many_nouns(400), Size(train=50, validation=10, classes=2))
    assert splits.classes == ("act", "animal")
    for rows, each in ((splits.train, 50), (splits.validation, 10)):
        assert [sum(row["label"] == label for row in rows) for label in (0, 1)] == [each, each]
    assert not {row["text"] for row in splits.train} & {row["text"] for row in splits.validation}


def test_a_text_that_two_units_share_stands_in_one_split() -> None:
    rows = [Labelled(f"unit {number}", f"text {number // 2}", "ab"[number // 2 % 2]) for number in range(200)]
    splits = classified(rows, Size())
    texts = [row["text"] for row in (*splits.train, *splits.validation)]
    assert len(texts) == len(set(texts)) == 100


def test_a_single_class_and_an_empty_split_are_refused() -> None:
    with pytest.raises(ValueError, match="needs two classes, the rows have 1"):
        classified([Labelled("one", "a text", "a"), Labelled("two", "another", "a")], Size())
    learnt = [unit for unit in map(str, range(20)) if not held_out(unit)][:2]
    with pytest.raises(ValueError, match="a split is empty: 2 rows to learn from, 0 held out"):
        classified([Labelled(unit, unit, unit) for unit in learnt], Size())


def test_a_source_package_gives_one_row_a_section_and_stays_in_one_split() -> None:
    paragraphs = [
        f"Package: {kind}{number}-{part}\nSource: source{number} (1.0)\nDescription: number {number} for {kind} {part}\n"
        f" goes on here\nSection: {'contrib/' if number % 2 else ''}{kind}\n"
        for number in range(60)
        for kind in ("libs", "doc")
        for part in ("one", "two")
    ]
    short = "Package: short\nDescription: two words\nSection: libs\n"
    splits = sections("\n".join([*paragraphs, short]).splitlines(), Size())
    assert splits.classes == ("doc", "libs")
    rows = [*splits.train, *splits.validation]
    assert len(rows) == 120
    assert all(str(row["text"]).endswith("one") for row in rows)
    numbers = [{str(row["text"]).split()[1] for row in split} for split in (splits.train, splits.validation)]
    assert not numbers[0] & numbers[1]


def test_splits_are_written_as_lines_of_json(tmp_path: Path) -> None:
    splits = glosses(_many_nouns(100), Size(classes=2))
    splits.write(tmp_path / "glosses")
    lines = (tmp_path / "glosses" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == splits.validation


def test_a_cell_says_the_mean_over_seeds_and_the_interval_of_the_first() -> None:
    difference = {"low": -0.03, "value": -0.02, "high": -0.01}
    rows = [
        {"task": "glosses", "way": "random", "keep": 0.5, "kept": kept, "quality": {"difference": difference}}
        for kept in (0.98, 0.96)
    ]
    assert cell(rows, "glosses", "random", 0.5) == "97.0% (96.0% to 98.0%)\n-2.0 [-3.0, -1.0]"
    assert cell(rows, "glosses", "random", 0.7) == ""
