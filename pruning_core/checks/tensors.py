"""Checks that a checkpoint has the tensors that the task's class of transformers needs, in its shapes. Torch-free.

transformers draws what is missing at random, and fails on what has another shape. ``expected_tensors.json`` says which tensors
the classes of `checks.heads` have, by the entries of a configuration; a test compares it with transformers. Where it does not
know, nothing is checked, and the job decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pruning_core.checks.config import with_defaults
from pruning_core.checks.declared import declared
from pruning_core.checks.heads import lacks_weights
from pruning_core.errors import ModelUnreadable
from pruning_core.spec.tasks import KINDS, TaskType

# What transformers takes for a size that is not stated, or null: another size, or the quotient of two.
_INSTEAD: Mapping[str, tuple[str, ...]] = {
    "num_key_value_heads": ("num_attention_heads",),
    "head_dim": ("hidden_size", "num_attention_heads"),
    "num_decoder_layers": ("num_layers",),
    "decoder_vocab_size": ("vocab_size",),
    "word_embed_proj_dim": ("hidden_size",),
    "embedding_size": ("hidden_size",),
}
_SHOWN = 3  # names, as the job shows them


@dataclass(frozen=True, slots=True)
class _Expected:
    """A tensor of a class: its shape, with None for what is not known of it, and whether a checkpoint must have it."""

    shape: tuple[int | None, ...] | None
    needed: bool


def check_tensors(task_type: TaskType, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a checkpoint has the tensors that the task's model needs, and in the shapes that its configuration makes.

    Args:
        task_type: The task type.
        config: Configuration of the checkpoint.
        shapes: Shape of each tensor, by its name.

    Raises:
        ModelUnreadable: A tensor is missing or has another shape.
    """
    entry = declared("expected_tensors").get(f"{config.get('model_type')} {KINDS[task_type].loads_as}")
    if (
        entry is None
        or config.get("pruned_heads")
        or any(re.search(own, name) for own in entry["converted"] for name in shapes)
    ):
        return
    sizes = sizes_of(entry, config)
    choice = [flag_of(name, entry, sizes, config) for name in entry["flags"]]
    if choice not in entry["combos"]:
        return
    combo = entry["combos"].index(choice)
    expected = dict(_expected(entry, sizes, combo, len(shapes)))
    stored = {_name_in_model(name, entry, expected): name for name in shapes}
    own = _own_shapes(config, entry["prefix"], expected)
    lacking = _absent(config, entry["prefix"])
    missing = {
        name
        for name, one in expected.items()
        if one.needed and name not in stored and _module(name) not in own and not name.startswith(lacking)
    }
    for group, when in entry["ties"]:
        if (when is None or combo in when) and any(name in stored for name in group):
            missing -= set(group)
    if missing:
        raise lacks_weights(task_type, ", ".join(sorted(missing)[:_SHOWN]))
    for name, there in stored.items():
        one = expected.get(name)
        if one is None or one.shape is None or _module(name) in own:
            continue
        found = shapes[there]
        if len(found) != len(one.shape) or any(made not in (None, size) for made, size in zip(one.shape, found, strict=True)):
            raise _misshapen(there, found, one.shape)


def sizes_of(entry: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of a model by the names of a configuration's entries, those that transformers derives included."""
    given = with_defaults(config)
    for alias, name in cast("dict[str, str]", entry["aliases"]).items():
        if alias in config:
            given[name] = config[alias]
    sizes = {name: value for name, value in given.items() if type(value) is int}
    for name, others in _INSTEAD.items():
        if name not in sizes and all(sizes.get(other) for other in others):
            first, *rest = (sizes[other] for other in others)
            sizes[name] = first // rest[0] if rest else first
    if "n_inner" not in sizes and "n_embd" in sizes:
        sizes["n_inner"] = 4 * sizes["n_embd"]
    names, stated = config.get("id2label"), sizes.pop("num_labels", None)
    labels = len(cast("dict[str, object]", names)) if isinstance(names, dict) else stated
    if stated in (None, labels):
        sizes["num_labels"] = entry["labels"] if labels is None else labels
    if sizes.get("image_size") and sizes.get("patch_size"):
        sizes["patches"] = (sizes["image_size"] // sizes["patch_size"]) ** 2
    return sizes


def flag_of(name: str, entry: Mapping[str, Any], sizes: Mapping[str, int], config: Mapping[str, Any]) -> object:
    """Return the value of an entry that decides which tensors there are, or of a comparison of sizes."""
    if "==" in name:
        first, second = name.split("==")
        return sizes.get(first) == sizes.get(second)
    if name.endswith(">0"):
        return sizes.get(name.removesuffix(">0"), 0) > 0
    value: object = config.get(name, entry["usual"].get(name, True))
    return value.lower().split("|") if name == "pos_att_type" and isinstance(value, str) else value


def _expected(entry: Mapping[str, Any], sizes: Mapping[str, int], combo: int, most: int) -> Iterator[tuple[str, _Expected]]:
    """Yield the tensors of a class. Of more layers than there are tensors, only as many as prove that some are missing."""
    for name, dimensions, span, needed, when in entry["tensors"]:
        if when is not None and combo not in when:
            continue
        shape = None if dimensions is None else tuple(_size(own, sizes) for own in dimensions)
        if span is None:
            yield name, _Expected(shape, needed)
            continue
        first, end = span
        for index in range(first, min(end if isinstance(end, int) else sizes.get(end, 0), most + 1)):
            yield name.replace("{}", str(index)), _Expected(shape, needed)


def _size(function: int | Sequence[Any] | None, sizes: Mapping[str, int]) -> int | None:
    if function is None or isinstance(function, int):
        return function
    added, factor, *names = function
    for name in names:
        if name not in sizes:
            return None
        factor *= sizes[name]
    return added + factor


def _name_in_model(stored: str, entry: Mapping[str, Any], expected: Mapping[str, object]) -> str:
    """Return the name that transformers reads a stored tensor under: it renames, and adds or takes off the base's prefix."""
    prefix = f"{entry['prefix']}."
    head = prefix if stored.startswith(prefix) else ""
    name = stored.removeprefix(head)
    for pattern, target in entry["renames"]:
        found = re.search(pattern, name)
        if found is not None:
            name = name.replace(found.group(), target, 1)
    if head and name in expected:
        return name
    return f"{prefix}{name}" if head or f"{prefix}{name}" in expected else name


def _own_shapes(config: Mapping[str, Any], prefix: str, expected: Iterable[str]) -> frozenset[str]:
    """Return the modules of a bundle of ours whose shapes its configuration states apart, with and without prefix."""
    parts = [_stated(config, name) for name in ("linears", "packed", "counts")]
    mixtures = tuple(f"{form}." for path in _stated(config, "experts") for form in _forms(path, prefix))
    within = {_module(name) for name in expected if name.startswith(mixtures)} if mixtures else set[str]()
    return frozenset(form for own in parts for path in own for form in _forms(path, prefix)) | within


def _absent(config: Mapping[str, Any], prefix: str) -> tuple[str, ...]:
    """Return how names begin of the tensors of attentions that a bundle of ours lacks, and of the norms before them."""
    own = _stated(config, "absent")
    paths = [*own, *(norm for norm in own.values() if isinstance(norm, str))]
    return tuple(f"{form}." for path in paths for form in _forms(path, prefix))


def _stated(config: Mapping[str, Any], name: str) -> dict[str, object]:
    """Return an object of a bundle's own entry."""
    stated: object = config.get("quantization_config")
    own: object = cast("dict[str, object]", stated).get(name) if isinstance(stated, dict) else None
    return cast("dict[str, object]", own) if isinstance(own, dict) else {}


def _forms(path: str, prefix: str) -> tuple[str, str, str]:
    return path, f"{prefix}.{path}", path.removeprefix(f"{prefix}.")


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _misshapen(name: str, found: tuple[int, ...], made: tuple[int | None, ...]) -> ModelUnreadable:
    wanted = ", ".join("any" if size is None else str(size) for size in made)
    has = ", ".join(map(str, found[:8]))
    return ModelUnreadable(
        f"tensor {name[:128]} has shape ({has}), and config.json makes it ({wanted}); the two belong to different models",
        param="model",
    )
