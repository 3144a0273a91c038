"""Classes of labels: which class of the model's head a name, an index or a row of zeros and ones means. Torch-free.

Everything is decided once for a label column, by all of its values in both splits, and never row by row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pruning_core.data.faults import check_label, shown
from pruning_core.errors import DatasetInvalid
from pruning_core.spec.labels import number_of

# One class of a label as the data writes it: an index, a yes or no, or a name.
Item = float | int | bool | str

_GENERIC = re.compile(r"LABEL_\d+", re.ASCII)
_FIELD = "task.columns.label"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the items of a label column mean.

    Attributes:
        index: The class of each item that occurs, by `key_of`.
        notes: What was decided, in sentences for whoever prepared the data.
    """

    index: Mapping[str | float, int]
    notes: tuple[str, ...] = ()

    def of(self, item: Item) -> int:
        """Return the class of an item."""
        return self.index[key_of(item)]


def key_of(item: Item) -> str | float:
    """Return what tells an item from all others; True is no 1 here."""
    return f"\0{item}" if isinstance(item, bool) else item


def meaning_of(items: Iterable[Item], names: Sequence[str], own: Sequence[str] = ()) -> Meaning:
    """Decide what the items of a label column mean.

    Args:
        items: All items that occur, in both splits.
        names: Names of the model's classes.
        own: Names that the data gives to its indices; empty where it gives none.

    Raises:
        DatasetInvalid: An item is no class of the model, or the data's classes are in another order that cannot be followed.
    """
    found = {key_of(item): item for item in items}
    texts = [item for item in found.values() if isinstance(item, str)]
    flags = [item for item in found.values() if isinstance(item, bool)]
    numbers = sorted(item for item in found.values() if isinstance(item, float | int) and not isinstance(item, bool))
    index, notes = _of_texts(texts, names)
    places, said = _of_indices(numbers, names, own)
    notes += said
    by_name = match([str(flag) for flag in flags], names)
    for flag in flags:
        named = by_name.get(str(flag))
        check_label(float(flag), len(names))
        index[key_of(flag)] = int(flag) if named is None else named
    return Meaning(index | places, tuple(notes))


def match(wanted: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """Match names to the model's: as they are, else without regard to case, spaces, hyphens and underscores."""
    exact = {name: place for place, name in enumerate(names)}
    counted = Counter(map(_plain, names))
    plain = {_plain(name): place for place, name in enumerate(names) if counted[_plain(name)] == 1}
    places = {name: exact.get(name, plain.get(_plain(name))) for name in wanted}
    return {name: place for name, place in places.items() if place is not None}


def are_generic(names: Mapping[int, str]) -> bool:
    """Return whether names say nothing: LABEL_0 and the like, which transformers gives to classes without names, or indices."""
    return all(_GENERIC.fullmatch(name) or number_of(name) == place for place, name in names.items())


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def _of_texts(texts: Sequence[str], names: Sequence[str]) -> tuple[dict[str | float, int], list[str]]:
    """Read texts as names of classes where all are; else as indices where all are numbers, or all are true or false."""
    if not texts:
        return {}, []
    named = match(texts, names)
    flags = {text: float(text.lower() == "true") for text in texts if text.lower() in ("true", "false")}
    digits = flags or {text: number for text in texts if (number := number_of(text)) is not None}
    if len(named) == len(texts):
        found: dict[str | float, int] = {**named}
        loose = sorted(text for text, place in named.items() if names[place] != text)
        notes = [f"labels are matched to the model's classes without regard to case and spaces: {_pairs(loose, named, names)}"]
        if digits and any(number != named[text] for text, number in digits.items()):
            return found, ["labels are read as names of the model's classes, which are numbers, and not as indices"]
        return found, notes if loose else []
    if len(digits) == len(texts):
        for number in digits.values():
            check_label(number, len(names))
        return {text: int(number) for text, number in digits.items()}, []
    unknown = min((text for text in texts if text not in named), key=lambda text: (text in digits, text))
    message = f"label {unknown[:64]!r} is no class of the model, which has {shown(names)}"
    if are_generic(dict(enumerate(names))):
        message += (
            f"; the data has {shown(sorted(texts))}: name the classes in the model's config.json (id2label), or give indices"
        )
    raise DatasetInvalid(message, param=_FIELD)


def _of_indices(numbers: Sequence[float], names: Sequence[str], own: Sequence[str]) -> tuple[dict[str | float, int], list[str]]:
    """Read numbers as indices; where the data names its classes, as indices of these names.

    A name that both have decides where its index goes. Where some names match and some do not, the indices can only be kept if
    no matching name contradicts them.
    """
    there = [int(number) for number in numbers if number == int(number) and 0 <= number < len(own)]
    known = len(there) == len(numbers) and bool(there)
    if not known or are_generic(dict(enumerate(names))) or are_generic({place: own[place] for place in there}):
        for number in numbers:
            check_label(number, len(names))
        return {number: int(number) for number in numbers}, [_NUMBERED] if _say_other_numbers(numbers, names) else []
    places = {place: found for place in there if (found := match([own[place]], names).get(own[place])) is not None}
    if len(places) == len(there) and len(set(places.values())) == len(places):
        moved = [place for place in there if places[place] != place]
        note = "the data's classes are in another order than the model's, and are matched by their names: " + ", ".join(
            f"{place} ({own[place][:64]}) is the model's {places[place]}" for place in moved[:8]
        )
        return {float(place): found for place, found in places.items()}, [note] if moved else []
    both = f"the data's classes are {shown(own)}; the model's are {shown(names)}"
    if any(place != found for place, found in places.items()):
        raise DatasetInvalid(
            f"{both}: some names are the same at other indices, and not all are; make them the same, in the data or in the "
            "model's config.json (id2label)",
            param=_FIELD,
        )
    for number in numbers:
        check_label(number, len(names))
    return {float(place): place for place in there}, [f"{both}: the names differ, and indices are taken as they are"]


_NUMBERED = (
    "the model's classes are named by numbers that are not their indices; the labels are numbers, and were read as indices: "
    "write them as text to have them read as names"
)


def _say_other_numbers(numbers: Sequence[float], names: Sequence[str]) -> bool:
    """Return whether names of classes are numbers other than their indices, and the labels could mean these."""
    said = [number_of(name) for name in names]
    return bool(numbers) and None not in said and said != [*range(len(names))] and all(number in said for number in numbers)


def _pairs(texts: Sequence[str], named: Mapping[str, int], names: Sequence[str]) -> str:
    return ", ".join(f"{text[:64]!r} is {names[named[text]][:64]!r}" for text in texts[:8])


Form = Literal["indices", "hot"]


def form_of(columns: Iterable[Sequence[Item]], classes: int) -> tuple[Form, tuple[str, ...]]:
    """Decide whether lists of classes are indices (or names), or multi-hot: a zero or one for each class of the model.

    Multi-hot lists have one entry a class, and repeat themselves, as indices do not. Floats and yes or no are multi-hot: no one
    writes indices so. Lists of two integers are told apart by a repeated entry; where there is none, nothing tells.

    Args:
        columns: All labels, of both splits.
        classes: Number of the model's classes.

    Raises:
        DatasetInvalid: The lists can be either, or neither.
    """
    lengths: set[int] = set()
    repeats = flags = floats = ones = False
    for items in columns:
        if any(_bit(item) is None for item in items):
            _check_shares(items)
            return "indices", ()
        lengths.add(len(items))
        bits = [_bit(item) for item in items]
        repeats |= len(set(bits)) < len(bits)
        flags |= any(isinstance(item, bool) for item in items)
        floats |= any(isinstance(item, float) for item in items)
        ones |= 1 in bits
    whole = lengths == {classes} and classes > 0
    if whole and (repeats or flags or floats or (classes == 1 and ones)):
        return "hot", (f"labels are read as multi-hot: a zero or one for each of the model's {classes} classes",)
    if flags or (repeats and len(lengths) == 1):
        raise DatasetInvalid(
            f"the labels look multi-hot, in lists of {shown([str(own) for own in sorted(lengths)])} zeros and ones; the model "
            f"has {classes} classes, and needs one entry for each",
            param=_FIELD,
        )
    if repeats:
        raise DatasetInvalid(
            "the labels are lists of zeros and ones that repeat, and of several lengths: neither indices of classes nor "
            "multi-hot; give the names or the indices of each row's classes once",
            param=_FIELD,
        )
    if whole and classes == 2:
        raise DatasetInvalid(
            "the labels are lists of one 0 and one 1: as indices every row has both classes, as multi-hot one; write the names "
            "of the classes, or multi-hot as true and false",
            param=_FIELD,
        )
    return "indices", ()


def _bit(item: Item) -> int | None:
    """Return a zero or one, also where it is written as text; None for anything else."""
    number = number_of(item) if isinstance(item, str) else item
    return None if number is None or number not in (0, 1) else int(number)


def _check_shares(items: Sequence[Item]) -> None:
    """Refuse probabilities in place of classes."""
    odd = next((item for item in items if isinstance(item, float) and not item.is_integer()), None)
    if odd is not None:
        raise DatasetInvalid(
            f"the labels hold {odd:g}, which is neither the index of a class nor a zero or one; shares of classes are not read",
            param=_FIELD,
        )


def are_on(items: Sequence[Item]) -> tuple[int, ...]:
    """Return the indices of the ones of a multi-hot list."""
    return tuple(place for place, item in enumerate(items) if _bit(item) == 1)
