"""Images of a data set, read from folders by class, from paths within the data set's folder, or from bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pruning_core.errors import DatasetInvalid
from pruning_core.files.paths import IMAGE_SUFFIXES, image_folder, is_local
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS

# No photograph's file is as large as this.
_LARGEST_BYTES = 64 * 2**20


def images_of(task: TaskSpec, split: str) -> Path | None:
    """Return the folder that holds the images of a split, one folder a class.

    Returns:
        None for tasks that read no images, for data of the Hub, and where tables lie instead.
    """
    if KINDS[task.type].reads != "image" or not is_local(task.dataset):
        return None
    return image_folder(Path(task.dataset).expanduser(), split)


def read_image_folder(folder: Path, split: str) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Read ``<split>/<class>/<image>``: each row's image in base64, and the name of its class."""
    root = image_folder(folder, split)
    assert root is not None, "only asked where there is one"
    found = [
        (path, one.name)
        for one in sorted(root.iterdir())
        if one.is_dir()
        for path in sorted(one.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    return tuple((_encoded(_read(path)),) for path, _ in found), tuple(name for _, name in found)


def encode_picture(value: Any, folder: Path | None) -> tuple[str, ...] | None:
    """Encode an image as base64, given as bytes, a path within the data set's folder, or the Hub's object of either.

    Returns:
        The image as a row's only input; None where the value is missing.

    Raises:
        DatasetInvalid: The value is none of these, or its path leads out of the folder or to another kind of file.
    """
    if isinstance(value, Mapping):
        given = cast("Mapping[str, Any]", value)
        value = given.get("bytes") if given.get("bytes") is not None else given.get("path")
    if value is None:
        return None
    if isinstance(value, bytes):
        return (_encoded(value),)
    if not isinstance(value, str) or folder is None:
        raise DatasetInvalid(
            f"the image column holds a {type(value).__name__}; it needs the bytes of image files, or their paths within the "
            "data set's folder",
            param="task.columns.image",
        )
    path = (folder / value).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DatasetInvalid(
            f"images must lie in the data set's folder and be named {', '.join(IMAGE_SUFFIXES)}; a row names another path",
            param="task.columns.image",
        )
    return (_encoded(_read(path)),)


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise DatasetInvalid(f"{path.name} has more than {_LARGEST_BYTES} bytes", param="task.dataset")
        return path.read_bytes()
    except OSError as error:
        raise_if_exhausted(error, "images were read")
        raise DatasetInvalid(
            f"the image {path.name} cannot be read ({type(error).__name__})", param="task.columns.image"
        ) from error
