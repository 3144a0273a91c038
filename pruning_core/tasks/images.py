"""Image classification. A row holds an image file's bytes in base64, so that every row is text."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from pruning_core.data.faults import no_image
from pruning_core.shapes import Float
from pruning_core.tasks.batch import Batch, Encoded
from pruning_core.tasks.classification import Classification

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase

    from pruning_core.data.rows import Rows
    from pruning_core.tasks.base import TaskModel


@dataclass(frozen=True)
class Pictures(Encoded):
    """Image files, decoded only when a batch is made: pixels take a hundred times as much memory.

    Attributes:
        files: Each file in base64, as in its row.
        patches: Number of tokens that the model makes of an image.
    """

    kept: ClassVar[bool] = False

    files: Sequence[str] = ()
    patches: int = 0

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each sample, the same for all images."""
        return [self.patches] * len(self.files)

    def batch(self, index: Sequence[int]) -> Batch:
        """Decode some samples into a batch; images need no padding."""
        picked = torch.tensor(index)
        pixels = _pixels(self.tokenizer, [(self.files[i],) for i in index])
        return _batch(pixels, picked, None if self.labels is None else self.labels[picked], self.patches)

    def fingerprint(self, index: Sequence[int]) -> str:
        """Hash the files of some samples."""
        digest = hashlib.sha256()
        for one in index:
            digest.update(self.files[one].encode())
        return f"sha256:{digest.hexdigest()}"


class ImageClassification(Classification):
    """Image classification: one class for each image."""

    # A PNG of one grey pixel.
    example = (
        ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==",),
        ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==",),
    )

    def encode(self, model: TaskModel, rows: Rows, limit: int) -> Pictures:
        """Make one sample of each row, for the model's own image processor.

        Raises:
            DatasetInvalid: A row's image cannot be read to its end.
        """
        del limit
        files = [file for (file,) in rows.texts]
        for file in files:
            with _opened(file) as image:
                # Some formats then decode an eighth of the pixels; the whole file is read all the same.
                image.draft("RGB", (1, 1))
                image.load()
                image.getexif()
        return Pictures(model.processor, {}, self.labels_of(rows), files, patches_of(model))

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Raise: images need the model's image processor, not a tokenizer."""
        raise NotImplementedError

    def probe_inputs(self, model: TaskModel, texts: Sequence[tuple[str, ...]], length: int) -> Batch:
        """Prepare images with the model's image processor."""
        del length
        return _batch(_pixels(model.processor, texts), torch.arange(len(texts)), None, patches_of(model))

    def input_length(self, model: TaskModel, wanted: int) -> int:
        """Return the number of tokens of an image, whatever length is wanted."""
        del wanted
        return patches_of(model)

    def random_inputs(self, model: TaskModel, batch: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw random pixels; the model fixes the number of tokens."""
        del length
        blank = _pixels(model.processor, self.example[:1])
        return {"pixel_values": torch.rand((batch, *blank.shape[1:]), generator=generator).to(model.device)}


def _batch(pixels: Tensor, rows: Tensor, labels: Tensor | None, patches: int) -> Batch:
    return Batch({"pixel_values": pixels}, rows, labels, torch.ones(len(rows), patches, dtype=torch.bool))


def _pixels(processor: object, rows: Sequence[tuple[str, ...]]) -> Float[Tensor, "n c h w"]:
    images: list[object] = []
    for (file,) in rows:
        with _opened(file) as image:
            images.append(upright(image).convert("RGB"))
    return cast("Tensor", cast("Any", processor)(images, return_tensors="pt")["pixel_values"])


def upright(image: Image.Image) -> Image.Image:
    """Turn a photograph as its camera says (EXIF), which users' pipelines do."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


@contextmanager
def _opened(encoded: str) -> Generator[Image.Image]:
    """Open an image file; it is decoded when its pixels are read.

    Raises:
        DatasetInvalid: The file is not an image, or its pixels would take more memory than any photograph's.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        yield Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,  # raised by Pillow for a broken PNG
        binascii.Error,
        struct.error,  # and for broken EXIF
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise no_image("a row", type(error).__name__) from error


def patches_of(model: TaskModel) -> int:
    """Count the tokens that a vision Transformer makes of an image: patches, and special tokens such as the class's."""
    blank = _pixels(model.processor, ImageClassification.example[:1]).to(model.device)
    with torch.inference_mode():
        return cast("Any", model.model.base_model).embeddings(blank).shape[1]
