"""Copies of an honest model and data set, which attacks on workers change."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import tasks
from tests.attacks.payloads import png
from tests.attacks.target import Target
from tests.contract.archives import contents


class Honest:
    """Copies of an honest model and data set, for an attack to change.

    Attributes:
        target: The service.
        model: Folder of the model.
        data: Folder of the data set.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        """Write a tiny model, and data with the columns of SST-2."""
        self.target = target
        self.model, self.data = folder / "model", folder / "data"
        for name in ("model", "data"):
            for path, body in contents(target.root / name).items():
                (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / name / path).write_bytes(body)

    def edit(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a JSON file of the model in place."""
        path = self.model / name
        found = json.loads(path.read_text()) if path.is_file() else {}
        change(found)
        path.write_text(json.dumps(found))

    def rows(self, text: str, rows: int = 40) -> None:
        """Replace the data by rows of one text."""
        for split in ("train", "validation"):
            (self.data / f"{split}.parquet").unlink(missing_ok=True)
            lines = [json.dumps({"sentence": text, "label": index % 2}) for index in range(rows)]
            (self.data / f"{split}.jsonl").write_text("\n".join(lines) + "\n")

    def splits(self, suffix: str, body: bytes) -> None:
        """Replace the data by two files of the same bytes."""
        for split in ("train", "validation"):
            (self.data / f"{split}.parquet").unlink(missing_ok=True)
            (self.data / f"{split}{suffix}").write_bytes(body)

    def sparse(self, suffix: str, size: int, start: bytes) -> dict[str, Any]:
        """Lay data of a size that no upload may have into the allowed root: a start, and zeros that take no disk."""
        folder = self.target.root / f"sparse-{self.data.parent.name}{suffix}"
        folder.mkdir(exist_ok=True)
        for split in ("train", "validation"):
            with (folder / f"{split}{suffix}").open("wb") as file:
                file.write(start)
                file.truncate(size)
        return {"data": str(folder)}

    def images(self, write: Callable[[], bytes], name: str = "a.png") -> dict[str, Any]:
        """Replace model and data by those of a classifier of images, of which some are an attack's."""
        shutil.rmtree(self.model)
        shutil.rmtree(self.data)
        tasks.write_task_model(self.model, "image-classification")
        for split in ("train", "validation"):
            for label in ("dark", "light"):
                folder = self.data / split / label
                folder.mkdir(parents=True)
                for index in range(6):
                    (folder / f"b{index}.png").write_bytes(png(16, 16, pixels(16)))
                (folder / name).write_bytes(write())
        return {"task": IMAGES}


IMAGES = {"type": "image-classification", "columns": {"image": "image", "label": "label"}, "metric": "accuracy"}


def pixels(side: int) -> bytes:
    return zlib.compress(b"".join(b"\0" + b"\x7f" * (3 * side) for _ in range(side)))
