"""The nearest known name to one that is not known, for errors that say what was probably meant. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel

# A longer word is no misspelling, and comparing it would take a stranger's time out of everybody's.
_LONGEST = 64
_LIKENESS = 0.6
_FEW = 12


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that a word was probably meant to be, whatever its case; None if no name is like it."""
    if not word or len(word) > _LONGEST:
        return None
    names = {_plain(name): name for name in known}
    # glue/sst2 is found by sst2, too.
    names |= {_plain(name.rpartition("/")[2]): name for name in names.values() if "/" in name and "/" not in word}
    found = get_close_matches(_plain(word), list(names), n=1, cutoff=_LIKENESS)
    return names[found[0]] if found else None


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the nearest known name: ``; did you mean X?``. Empty if no name is like it."""
    found = nearest(word, known) if isinstance(word, str) else None
    return "" if found is None else f"; did you mean {found}?"


def no_known_field(model: type[BaseModel], location: Sequence[str | int]) -> str:
    """Return what is wrong with a field that a model does not know, in words that follow the field's name.

    Args:
        model: The model that was validated.
        location: Where the unknown field is in it, as pydantic says it.
    """
    *parents, last = location
    word = str(last)
    siblings = fields_at(model, parents)
    if (like := nearest(word, siblings)) is not None:
        return f"is no known field; did you mean {like}?"
    elsewhere = [path for path in paths_of(model) if path.rpartition(".")[2] == word]
    if elsewhere:
        return f"is no known field here; did you mean {elsewhere[0]}?"
    few = f"; known are {', '.join(siblings)}" if 0 < len(siblings) <= _FEW else ""
    return f"is no known field{few}"


def fields_at(model: type[BaseModel], location: Sequence[str | int]) -> tuple[str, ...]:
    """Return the names of the fields that the object at a location may have; empty where it is no object of known fields."""
    found: list[type[BaseModel]] = [model]
    for part in location:
        if isinstance(part, int):
            continue  # the annotation of a list was taken apart into that of its items
        inner = [kind for one in found if part in one.model_fields for kind in _models_in(one.model_fields[part].annotation)]
        # Otherwise it is the tag of a union, and chooses among the models.
        found = inner or [one for one in found if part in _tags(one)]
    names = [name for one in found for name in (*one.model_fields, *getattr(one, "shorthands", ()))]
    return tuple(dict.fromkeys(names))


@cache
def paths_of(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the dotted paths of all fields of a model and of the models in it."""
    return tuple(dict.fromkeys(_paths(model)))


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _models_in(field.annotation):
            yield from _paths(inner, f"{prefix}{name}.")


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = get_origin(annotation)
    if origin is Annotated:
        return _models_in(get_args(annotation)[0])
    if origin in (Union, UnionType, tuple, list):
        return [model for inner in get_args(annotation) for model in _models_in(inner)]
    return []


def _tags(model: type[BaseModel]) -> set[str]:
    literals = [field.annotation for field in model.model_fields.values() if get_origin(field.annotation) is Literal]
    return {value for literal in literals for value in get_args(literal) if isinstance(value, str)}


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
