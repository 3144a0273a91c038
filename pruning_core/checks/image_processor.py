"""Checks of the settings of an image processor, by which images become a model's pixels. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from pruning_core.checks.declared import declared
from pruning_core.errors import ModelUnreadable
from pruning_core.files.model_json import read_object

_NAME = "preprocessor_config.json"
_LARGEST_BYTES = 2**20
_LARGEST_SIDE = 2**13
_LARGEST_NUMBER = 1e6
_CLASSES = "the name of a class of transformers that makes pixels of an image, such as ViTImageProcessor"
_SWITCHES = {
    **dict.fromkeys(("image_mean", "image_std"), "do_normalize"),
    **dict.fromkeys(("size", "resample"), "do_resize"),
    "rescale_factor": "do_rescale",
}
_EDGES = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"longest_edge"},
    {"max_height", "max_width"},
)
_USUAL_SIZE = 224  # of the processors of the types below
_FILTERS = range(6)  # of Pillow
# Model types whose tables of positions are made for one size of images.
_OF_ONE_SIZE = ("vit", "deit")


def check_image_processor(folder: Path, config: Mapping[str, Any]) -> None:
    """Check what a processor's file says of sizes, colours and switches.

    Raises:
        ModelUnreadable: transformers would fail on it, or make images of another size than the model's.
    """
    found = read_object(folder, _NAME, most_bytes=_LARGEST_BYTES)
    if found is None:
        return
    for name, must in _odd(found, config):
        raise ModelUnreadable(f"{_NAME}: {name} must be {must}", param="model")


def _odd(said: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the entries that are of no use, with what they must be."""
    rules: tuple[tuple[str, Callable[[object], bool], str], ...] = (
        *((name, _is_switch, "true or false") for name in said if name.startswith("do_")),
        ("image_processor_type", _is_class, _CLASSES),
        ("feature_extractor_type", lambda value: _is_class(str(value).replace("FeatureExtractor", "ImageProcessor")), _CLASSES),
        ("rescale_factor", _is_number, "a number"),
        ("resample", lambda value: type(value) is int and value in _FILTERS, "a whole number from 0 to 5"),
        ("image_mean", _is_colour, "a number, or a list of one for each of three colours"),
        (
            "image_std",
            lambda value: _is_colour(value) and _is_above_zero(value),
            "numbers above 0, one for each of three colours",
        ),
        ("size", _is_size, f"an object with height and width, or shortest_edge, whole numbers from 1 to {_LARGEST_SIDE}"),
        ("crop_size", _is_size, f"an object with height and width, whole numbers from 1 to {_LARGEST_SIDE}"),
    )
    for name, rule, must in rules:
        needed = name in _SWITCHES and said.get(_SWITCHES[name], True)
        if name in said and (needed or said[name] is not None) and not rule(said[name]):
            yield name, must
    size, side = _sides(said.get("size", _USUAL_SIZE)), _sides(config.get("image_size"))
    if config.get("model_type") in _OF_ONE_SIZE and side is not None and not said.get("do_center_crop"):
        if not said.get("do_resize", True):
            yield "do_resize", "true: the model takes images of one size only"
        elif size is not None and size != side:
            yield "size", f"height {side[0]} and width {side[1]}, the model's image_size"


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(cast("float", value)) <= _LARGEST_NUMBER  # NaN is not


def _is_class(value: object) -> bool:
    """Return whether a value names a class by which transformers makes pixels of one image."""
    return isinstance(value, str) and value.removesuffix("Fast") in declared("image_processors")["names"]


def _numbers(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _is_colour(value: object) -> bool:
    numbers = _numbers(value)
    return (not isinstance(value, list) or len(numbers) == 3) and all(map(_is_number, numbers))


def _is_above_zero(value: object) -> bool:
    return all(cast("float", number) > 1 / _LARGEST_NUMBER for number in _numbers(value))


def _is_size(value: object) -> bool:
    if not isinstance(value, dict):
        return _is_side(value)
    fields = cast("dict[str, object]", value)
    return fields.keys() in _EDGES and all(map(_is_side, fields.values()))


def _is_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_SIDE


def _sides(value: object) -> tuple[object, object] | None:
    """Return the height and width of a size; None where it states no such."""
    match value:
        case {"height": height, "width": width}:
            return height, width
        case int():
            return value, value
        case [height, width]:
            return height, width
        case _:
            return None
