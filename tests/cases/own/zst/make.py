"""See README.md."""

import pyarrow as pa
from tiny import DATA, classifier, jsonl

classifier()
jsonl()
for split in ("train", "validation"):
    path = DATA / f"{split}.jsonl"
    with pa.CompressedOutputStream(str(path) + ".zst", "zstd") as out:
        out.write(path.read_bytes())
    path.unlink()
