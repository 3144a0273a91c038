"""What hypothesis draws: a good request, and one to three mutations of its parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hypothesis import strategies as st

from tests.mutations import documents, files, rows, tokenizers, weights
from tests.mutations.bases import BASES, Place

_LARGEST = 10_000


@dataclass(frozen=True)
class Mutation:
    """One mutation: what kind, of which file, by which operation; ``index`` and ``value`` say where, and what instead."""

    kind: str
    operation: str
    index: int
    value: int = 0
    file: str = ""


@dataclass(frozen=True)
class Example:
    """A good request and its mutations."""

    base: str
    mutations: tuple[Mutation, ...]

    def as_json(self) -> str:
        """Write it, so that it can be made again."""
        return json.dumps({"base": self.base, "mutations": [asdict(one) for one in self.mutations]})

    @classmethod
    def from_json(cls, text: str) -> Example:
        """Read what `as_json` wrote."""
        said = json.loads(text)
        return cls(said["base"], tuple(Mutation(**one) for one in said["mutations"]))

    def make(self, place: Place) -> None:
        """Spoil a copy of the good request. What another mutation has taken away already is left alone."""
        for one in sorted(self.mutations, key=lambda one: _ORDER.index(one.kind)):
            _APPLY[one.kind](place, one)


def _of_document(place: Place, one: Mutation) -> None:
    path = place.folder / one.file
    if path.is_file() and not path.is_symlink():
        found = json.loads(path.read_text(encoding="utf-8"))
        found = documents.mutated(found, one.operation, one.index, documents.VALUES[one.value % len(documents.VALUES)])
        path.write_text(documents.dumped(found), encoding="utf-8", errors="replace")


def _of_config(place: Place, one: Mutation) -> None:
    """Write keys of other tools, or swap the whole configuration for another model's."""
    path = place.model / "config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    if one.operation == "foreign":
        said |= documents.FOREIGN[one.index % len(documents.FOREIGN)]
    else:
        other = place.folder.parent.parent / "bases" / sorted(BASES)[one.index % len(BASES)] / "model" / "config.json"
        said = json.loads(other.read_text(encoding="utf-8"))
    path.write_text(documents.dumped(said), encoding="utf-8")


def _of_header(place: Place, one: Mutation) -> None:
    def change(header: Any) -> Any:
        return documents.mutated(header, one.operation, one.index, documents.VALUES[one.value % len(documents.VALUES)])

    weights.mutate_header(place.model / "model.safetensors", change)


def _of_file(place: Place, one: Mutation) -> None:
    found = sorted(path for name in ("model", "data") for path in (place.folder / name).rglob("*") if path.is_file())
    chosen = [path for path in found if path.name == one.file.rsplit("/", 1)[-1]] or found
    if chosen:
        files.OPERATIONS[one.operation](chosen[one.index % len(chosen)], one.index)


def _of_key(place: Place, one: Mutation) -> None:
    path = place.folder / one.file
    if path.is_file():
        files.duplicate_key(path, one.index)


def _of_spec_size(place: Place, one: Mutation) -> None:
    """Ask for numbers at the ends of what is allowed, and beyond."""
    said = json.loads(place.spec.read_text(encoding="utf-8"))
    if isinstance(said, dict):
        said |= _REQUESTS[one.index % len(_REQUESTS)]
        place.spec.write_text(documents.dumped(said), encoding="utf-8")


# Requests of users: whole fields of a spec.
_REQUESTS: tuple[Mapping[str, Any], ...] = (
    {"target": {"metric": "macs", "keep": 0.01}},
    {"target": {"metric": "macs", "keep": 0.999}},
    {"target": {"metric": "parameters", "keep": 0.5}},
    {"target": {"metric": "parameters", "keep": 0.05}},
    {"target": {"metric": "latency", "keep": 0.7}},
    {"target": {"metric": "sparsity", "sparsity": 0.5}},
    {"target": None, "targets": [{"metric": "macs", "keep": 0.8}, {"metric": "macs", "keep": 0.5}]},
    {"target": None, "quality_floor": {"kind": "relative", "value": 0.5}},
    {"quality_floor": {"kind": "absolute", "value": 0.99}},
    {"target": {"metric": "macs", "keep": "half"}},
    {"target": {"metric": "sparsity", "sparsity": 0.5}, "method": {"name": "block-lasso", "block": "8x8"}},
    {"target": {"metric": "sparsity", "sparsity": 0.5}, "method": {"name": "block-lasso", "block": "7x3"}},
    {"target": None, "method": {"name": "admm-pattern", "pattern": "2:4"}},
    {"target": None, "method": {"name": "admm-pattern", "pattern": "3:7"}},
    {"method": "magnitude"},
    {"method": "random"},
    {"method": "wanda"},
    {"artifacts": {"layout": "stock"}},
    {"artifacts": {"layout": "per_layer", "dtype": "float16"}},
    {"artifacts": {"dtype": "bfloat16", "layout": "stock"}},
    {"artifacts": {"shard_mb": 1}},
    {"artifacts": {"formats": ["safetensors", "compressed"]}},
    {"calibration": {"samples": 1, "max_length": 16}},
    {"calibration": {"samples": 8, "max_length": 4096}},
    {"calibration": {"samples": 100_000, "max_length": 8}},
    {"calibration": {"samples": 8, "max_length": 1}},
    {"calibration": {"samples": 8, "sampling": "longer", "max_length": 32}},
    {"evaluation": {"max_samples": 1}},
    {"evaluation": {"max_length": 2}},
    {"latency": {"batch": 3, "length": 1, "repeats": 3}},
    {"latency": {"batch": 1, "length": 5000, "repeats": 3}},
    {"seed": 2**40},
    {"revision": "main"},
    {"memory": {"weights": "paged"}},
    {"recovery": {"kind": "none"}},
    {"model": "org/name@rev"},
    {"unknown_field": 1},
)

_APPLY: Mapping[str, Callable[[Place, Mutation], None]] = {
    "weights": lambda place, one: weights.mutate_weights(place.model, one.operation, one.index),
    "tokenizer": lambda place, one: tokenizers.mutate_tokenizer(place.model, one.operation, one.index),
    "config": _of_config,
    "rows": lambda place, one: rows.mutate_rows(
        place.data, one.operation, one.index, documents.VALUES[one.value % len(documents.VALUES)]
    ),
    "form": lambda place, one: rows.write_as(place.data, one.operation),
    "request": _of_spec_size,
    "spec": _of_document,
    "document": _of_document,
    "split": lambda place, one: rows.rename_split(place.data, one.index),
    "key": _of_key,
    "header": _of_header,
    "stranger": lambda place, one: files.add_stranger(place.folder, one.index),
    "file": _of_file,
    "place": lambda place, one: files.rearrange(place.folder, one.index),
}
_ORDER = tuple(_APPLY)
_DOCUMENTS = ("model/config.json", "model/tokenizer.json", "model/tokenizer_config.json")
_BESIDE = {
    "sentences": ("model/modules.json", "model/1_Pooling/config.json", "model/sentence_bert_config.json"),
    "sentence-pairs": ("model/modules.json", "model/1_Pooling/config.json"),
    "vit": ("model/preprocessor_config.json",),
}


def documents_of(base: str) -> tuple[str, ...]:
    """Name the JSON files of a model."""
    own = _DOCUMENTS if base != "vit" else _DOCUMENTS[:1]
    return own + _BESIDE.get(base, ())


def _mutations(base: str, only: tuple[str, ...]) -> st.SearchStrategy[Mutation]:
    index, value = st.integers(0, _LARGEST), st.integers(0, len(documents.VALUES) - 1)

    def of(kind: str, operations: Any, *, file: Any = "", values: bool = False) -> st.SearchStrategy[Mutation]:
        names = st.just(file) if isinstance(file, str) else st.sampled_from(file)
        given = value if values else st.just(0)
        return st.builds(Mutation, st.just(kind), st.sampled_from(tuple(operations)), index, given, names)

    own = documents_of(base)
    on_disk = (*own, "model/model.safetensors", "data/train.jsonl", "data/validation.jsonl", "data/train.parquet")
    kinds = {
        "document": of("document", documents.OPERATIONS, file=own, values=True),
        "spec": of("spec", documents.OPERATIONS, file="spec.json", values=True),
        "request": of("request", ("request",)),
        "config": of("config", ("foreign", "foreign", "foreign", "swap")),
        "weights": of("weights", weights.OPERATIONS),
        "header": of("header", documents.OPERATIONS, values=True),
        "rows": of("rows", rows.OPERATIONS, values=True),
        "form": of("form", rows.FORMS),
        "split": of("split", ("rename",)),
        "key": of("key", ("twice",), file=own),
        "stranger": of("stranger", ("add",)),
        "file": of("file", files.OPERATIONS, file=on_disk),
        "place": of("place", ("move",)),
    }
    if base != "vit":
        kinds["tokenizer"] = of("tokenizer", tokenizers.OPERATIONS)
    return st.one_of([strategy for kind, strategy in kinds.items() if not only or kind in only])


def examples(only: tuple[str, ...] = ()) -> st.SearchStrategy[Example]:
    """Draw a good request, and one to three mutations of it; mostly one, so that the job has something to do.

    Args:
        only: Kinds of mutations; all where there are none.
    """

    def with_base(base: str) -> st.SearchStrategy[Example]:
        one = _mutations(base, only)
        several = st.one_of(st.tuples(one), st.tuples(one), st.tuples(one, one), st.tuples(one, one, one))
        return st.builds(Example, st.just(base), several)

    return st.sampled_from(tuple(BASES)).flatmap(with_base)
