"""Which classes of transformers make pixels of an image, by name: a file of `pruning_core.checks`, and a test of it.

Run as a module to write the file anew: ``python -m tests.image_processors``.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

PLACE = Path(__file__).parents[1] / "pruning_core" / "checks" / "image_processors.json"


def text() -> str:
    """Return the file's text: the names without the ending Fast, which transformers takes away."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    named = {name for own in IMAGE_PROCESSOR_MAPPING_NAMES.values() for name in own.values() if name}
    named |= {name for name in dir(transformers) if "ImageProcessor" in name}
    names = {name.removesuffix("Fast") for name in named}
    return json.dumps({"names": sorted(filter(_makes_pixels, names))}, indent=1) + "\n"


def _makes_pixels(name: str) -> bool:
    """Return whether a class as it is makes the usual input of one image. Some read text in it, and others cut it in parts."""
    import torch
    from PIL import Image
    from transformers.models.auto.image_processing_auto import get_image_processor_class_from_name

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_image_processor_class_from_name(name)()(Image.new("RGB", (50, 40)), return_tensors="pt")
        pixels = found.get("pixel_values")
    except Exception:
        return False
    return isinstance(pixels, torch.Tensor) and pixels.ndim == 4 and pixels.shape[:2] == (1, 3)


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
