"""Classes of images. A row holds an image as its file's bytes in base64, so that rows are text whatever they hold."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pruning_core.reader_checks import no_image
from pruning_core.shapes import Float
from pruning_core.tasks.batch import Batch, Encoded
from pruning_core.tasks.classification import Classification

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pruning_core.data import Rows
    from pruning_core.models import TaskModel

_PORTION = 64


@dataclass(frozen=True)
class Pictures(Encoded):
    """Images as the model's processor has prepared them.

    Attributes:
        pixels: (samples, channels, height, width).
        patches: Tokens that the model makes of each.
    """

    pixels: Float[Tensor, "n c h w"] | None = None
    patches: int = 0

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample: all images have the same number."""
        return [self.patches] * len(self._pixels)

    @property
    def _pixels(self) -> Float[Tensor, "n c h w"]:
        assert self.pixels is not None, "it is given to each"
        return self.pixels

    def batch(self, index: Sequence[int]) -> Batch:
        """Take some samples together; nothing is padded."""
        picked = torch.tensor(index)
        return _batch(self._pixels[picked], picked, None if self.labels is None else self.labels[picked], self.patches)

    def fingerprint(self, index: Sequence[int]) -> str:
        """Hash the exact pixels of some samples."""
        digest = hashlib.sha256()
        for one in index:
            digest.update(self._pixels[one].numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


class ImageClassification(Classification):
    """A class index for each image."""

    # A PNG of one grey pixel.
    example = (
        ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==",),
        ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==",),
    )

    def encode(self, model: TaskModel, rows: Rows, limit: int) -> Pictures:
        """Make one sample of each row, by the model's own image processor.

        Raises:
            DatasetInvalid: A row holds no image that can be read.
        """
        del limit
        parts = [_pixels(model, rows.texts[start : start + _PORTION]) for start in range(0, len(rows), _PORTION)]
        return Pictures(model.processor, {}, self.labels_of(rows), torch.cat(parts), patches_of(model))

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Encoded:
        """Not possible: images have no tokenizer."""
        raise NotImplementedError

    def probe_inputs(self, model: TaskModel, texts: Sequence[tuple[str, ...]], length: int) -> Batch:
        """Prepare images."""
        del length
        return _batch(_pixels(model, texts), torch.arange(len(texts)), None, patches_of(model))

    def random_inputs(self, model: TaskModel, batch: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw pixels; an image has as many tokens as it has."""
        del length
        blank = _pixels(model, self.example[:1])
        return {"pixel_values": torch.rand((batch, *blank.shape[1:]), generator=generator).to(model.device)}


def _batch(pixels: Tensor, rows: Tensor, labels: Tensor | None, patches: int) -> Batch:
    return Batch({"pixel_values": pixels}, rows, labels, torch.ones(len(rows), patches, dtype=torch.bool))


def _pixels(model: TaskModel, rows: Sequence[tuple[str, ...]]) -> Float[Tensor, "n c h w"]:
    processor = cast("Any", model.processor)
    return cast("Tensor", processor([_read(encoded) for (encoded,) in rows], return_tensors="pt")["pixel_values"])


def _read(encoded: str) -> Any:
    """Decode an image file.

    Raises:
        DatasetInvalid: It is none, or one that would take more memory than any photograph.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))).convert("RGB")
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,  # Pillow's word for a broken PNG
        binascii.Error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise no_image("a row", type(error).__name__) from error


# For the class, for a teacher's class (DeiT), and registers (DINOv2).
_LEARNT_TOKENS = ("cls_token", "distillation_token", "register_tokens")


def patches_of(model: TaskModel) -> int:
    """Count the tokens that a vision Transformer makes of an image: its patches, and those that it learnt beside them."""
    config = cast("Any", model.model.config)
    size, patch = config.image_size, config.patch_size
    height, width = (size, size) if isinstance(size, int) else size
    down, across = (patch, patch) if isinstance(patch, int) else patch
    learnt = [own.shape[1] for name, own in model.model.named_parameters() if name.endswith(_LEARNT_TOKENS)]
    return (height // down) * (width // across) + sum(learnt)
