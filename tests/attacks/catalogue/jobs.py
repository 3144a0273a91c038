"""Attacks that bite only where a model or data set is really read: in the worker's child."""

from __future__ import annotations

import io
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import tiny
from tests.attacks.attack import JobAttack
from tests.attacks.catalogue.honest import Honest, pixels
from tests.attacks.payloads import png, png_bomb, tiff, webp

DATA = frozenset({"dataset_invalid", "oom", "timeout", "crashed"})
MODEL = frozenset({"model_unreadable", "unsupported_architecture", "oom", "timeout", "crashed", "upload_invalid", "not_finite"})
ANY_END = frozenset({"failed", "succeeded"})


def _tokenizer(part: str, value: Any, text: str) -> Callable[[Honest], None]:
    def change(honest: Honest) -> None:
        honest.edit("tokenizer.json", lambda found: found.update({part: value}))
        honest.rows(text)

    return change


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _growing(times: int) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    return {"type": "Sequence", "normalizers": [step] * times}


def _repeating(count: int) -> dict[str, Any]:
    piece = {"Sequence": {"id": "A", "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [piece] * count, "pair": [piece], "special_tokens": {}}


def _padding(size: int) -> dict[str, Any]:
    return {
        "strategy": {"Fixed": size},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }


def _merges(honest: Honest) -> None:
    """Merges by which each token is twice the one before."""
    pieces = ["a" * 2**power for power in range(23)]
    vocab = {piece: index for index, piece in enumerate(["[PAD]", "[UNK]", *pieces])}
    merges = [[piece, piece] for piece in pieces[:-1]]
    honest.edit(
        "tokenizer.json",
        lambda found: found.update(
            {
                "model": {
                    "type": "BPE",
                    "vocab": vocab,
                    "merges": merges,
                    "unk_token": "[UNK]",
                    "fuse_unk": False,
                    "byte_fallback": False,
                    "dropout": None,
                    "continuing_subword_prefix": None,
                    "end_of_word_suffix": None,
                    "ignore_merges": False,
                }
            }
        ),
    )
    honest.rows("a" * 2**20, rows=4)


def _vocabulary(honest: Honest) -> None:
    honest.edit(
        "tokenizer.json", lambda found: found["model"]["vocab"].update({f"v{index}": index + 100 for index in range(2_000_000)})
    )


def _token_id(honest: Honest) -> None:
    honest.edit("tokenizer.json", lambda found: found["model"]["vocab"].update({"good": 2**31}))


def _template(honest: Honest) -> None:
    endless = "{% for i in range(10 ** 9) %}{% for j in range(10 ** 9) %}{{ 'x' * 10 ** 9 }}{% endfor %}{% endfor %}"
    honest.edit("tokenizer_config.json", lambda found: found.update({"chat_template": endless}))
    (honest.model / "chat_template.jinja").write_text(endless)


def _config(**entries: Any) -> Callable[[Honest], None]:
    return lambda honest: honest.edit("config.json", lambda found: found.update(entries))


def _own_entry(**entries: Any) -> Callable[[Honest], None]:
    return _config(quantization_config={"quant_method": "coppice", "linears": {}, "counts": {}, "packed": {}} | entries)


_QUERY = "bert.encoder.layer.0.attention.self.query"


def _infinite(honest: Honest) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = honest.model / "model.safetensors"
    found = load_file(path)
    name = next(name for name, own in found.items() if own.ndim == 2)
    save_file(found | {name: torch.full_like(found[name], math.inf)}, path, metadata={"format": "pt"})


def _parquet(make: Callable[[Path], None]) -> Callable[[Honest], None]:
    def change(honest: Honest) -> None:
        for split in ("train", "validation"):
            make(honest.data / f"{split}.parquet")

    return change


def _runs(path: Path) -> None:
    """Twenty million rows of one text, which take a few kilobytes as runs of a dictionary."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 20_000_000
    texts = pa.DictionaryArray.from_arrays(_zeros(rows), ["word1 " * 100])
    table = pa.table({"sentence": texts, "label": _zeros(rows)})
    pq.write_table(table, path, compression="zstd")


def _zeros(rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    return pa.array(np.zeros(rows, dtype=np.int8))


def _nested(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind: pa.DataType = pa.string()
    value: Any = "a"
    for _ in range(60):
        kind, value = pa.list_(kind), [value]
    pq.write_table(pa.table({"sentence": pa.array([value] * 40, kind), "label": [0] * 40}), path)


def _columns(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"sentence": ["a"], "label": [0]} | {f"c{index}": [0] for index in range(20_000)}), path)


def _footer(length: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        body = path.read_bytes()
        path.write_bytes(body[:-8] + struct.pack("<I", length) + b"PAR1")

    return make


def _damaged(path: Path) -> None:
    body = bytearray(path.read_bytes())
    for place in range(8, len(body) - 8, 7):
        body[place] ^= 0x55
    path.write_bytes(bytes(body))


def _bomb(honest: Honest) -> None:
    tiny.write_bomb(honest.data, 6)


def _elsewhere(text: Callable[[Honest], str]) -> Callable[[Honest], None]:
    def change(honest: Honest) -> None:
        (honest.data / "README.md").write_text(text(honest))

    return change


def _files_of(*names: str) -> str:
    listed = "".join(f"  - split: {split}\n    path: {name}\n" for split in ("train", "validation") for name in names)
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n{listed}---\n"


def _image_path(honest: Honest) -> dict[str, Any]:
    """Images that are named by a path in place of their bytes: one that is outside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    changes = honest.images(lambda: png(16, 16, pixels(16)))
    shutil.rmtree(honest.data)
    honest.data.mkdir()
    outside = honest.target.folder / "outside" / "canary.png"
    outside.write_bytes(png(16, 16, pixels(16)))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split in ("train", "validation"):
        images = pa.array([{"bytes": None, "path": str(outside)}] * 20, kind)
        pq.write_table(pa.table({"image": images, "label": [0, 1] * 10}), honest.data / f"{split}.parquet")
    return changes


def _jpeg(honest: Honest) -> dict[str, Any]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    return honest.images(lambda: buffer.getvalue()[:300], "a.jpg")


ATTACKS = [
    JobAttack(
        "tokenizer: a regex that goes back for ever",
        _tokenizer("pre_tokenizer", _split("(a+)+$"), "a" * 40_000 + "!"),
        MODEL | DATA,
        ANY_END,
    ),
    JobAttack(
        "tokenizer: a regex of nested repeats",
        _tokenizer("normalizer", {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}, "x" * 40_000),
        MODEL | DATA,
        ANY_END,
    ),
    JobAttack(
        "tokenizer: a regex of megabytes", _tokenizer("pre_tokenizer", _split("(a|b)?" * 200_000), "ab"), MODEL | DATA, ANY_END
    ),
    JobAttack("tokenizer: a regex that is none", _tokenizer("pre_tokenizer", _split("(((("), "ab"), MODEL),
    JobAttack("tokenizer: texts that grow a billionfold", _tokenizer("normalizer", _growing(4), "aaaa"), MODEL | DATA),
    JobAttack(
        "tokenizer: a template that repeats", _tokenizer("post_processor", _repeating(300_000), "word1 " * 2000), MODEL | DATA
    ),
    JobAttack("tokenizer: padding to a billion", _tokenizer("padding", _padding(10**9), "word1"), MODEL | DATA, ANY_END),
    JobAttack("tokenizer: merges that double", _merges, MODEL | DATA, ANY_END),
    JobAttack("tokenizer: two million words", _vocabulary, MODEL | DATA, ANY_END),
    JobAttack("tokenizer: an id beyond the embeddings", _token_id, MODEL | DATA | {"dataset_invalid"}, ANY_END),
    JobAttack("a chat template without an end", _template, frozenset(), frozenset({"succeeded"})),
    JobAttack("config: a table of 10^12 rows", _config(type_vocab_size=10**12), MODEL),
    JobAttack("config: a negative size", _config(type_vocab_size=-1), MODEL),
    JobAttack("config: heads of no size", _config(num_attention_heads=0), MODEL),
    JobAttack("config: an activation that is none", _config(hidden_act="__import__('os').system('id')"), MODEL),
    JobAttack("config: a type that is none", _config(dtype="load"), MODEL, row="M9"),
    JobAttack("our own entry: a matrix of 10^18", _own_entry(linears={_QUERY: [10**9, 10**9]}), MODEL, row="M9"),
    JobAttack("our own entry: a module that is none", _own_entry(linears={"nothing.here": [1, 1]}), MODEL, row="M9"),
    JobAttack("our own entry: an attribute", _own_entry(counts={"bert": {"forward": 1}}), MODEL, row="M9"),
    JobAttack(
        "our own entry: values of 10^12",
        _own_entry(
            packed={
                _QUERY: {"form": "bits", "shape": [10**6, 10**6], "values": 10**12, "bytes": 10**12, "crc": 0, "values_crc": 0}
            }
        ),
        MODEL,
        row="M9",
    ),
    JobAttack("weights that are infinite", _infinite, MODEL),
    JobAttack("Parquet: texts of gigabytes", _bomb, DATA),
    JobAttack("Parquet: runs of millions of rows", _parquet(_runs), DATA, ANY_END),
    JobAttack("Parquet: lists in lists", _parquet(_nested), DATA),
    JobAttack("Parquet: twenty thousand columns", _parquet(_columns), DATA, ANY_END),
    JobAttack("Parquet: a footer of 4 GiB", _parquet(_footer(2**32 - 1)), DATA),
    JobAttack("Parquet: a footer that is too short", _parquet(_footer(3)), DATA),
    JobAttack("Parquet: damaged all over", _parquet(_damaged), DATA),
    JobAttack("CSV: a line of 8 GiB", lambda honest: honest.sparse(".csv", 2**33, b'sentence,label\n"'), DATA),
    JobAttack("CSV: a header of 8 GiB", lambda honest: honest.sparse(".csv", 2**33, b"sentence"), DATA),
    JobAttack(
        "CSV: a quote without an end", lambda honest: honest.splits(".csv", b'sentence,label\n"' + b"a," * 10_000_000), DATA
    ),
    JobAttack(
        "CSV: a hundred thousand columns",
        lambda honest: honest.splits(
            ".csv", b"sentence,label," + b",".join(b"c%d" % index for index in range(100_000)) + b"\n"
        ),
        DATA,
    ),
    JobAttack("JSON Lines: a line of 8 GiB", lambda honest: honest.sparse(".jsonl", 2**33, b'{"sentence": "'), DATA),
    JobAttack(
        "JSON Lines: too deep",
        lambda honest: honest.splits(".jsonl", b'{"label": 0, "sentence": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"),
        DATA,
    ),
    JobAttack(
        "JSON Lines: a number of a million digits",
        lambda honest: honest.splits(".jsonl", b'{"sentence": "a", "label": ' + b"9" * 1_000_000 + b"}\n"),
        DATA,
    ),
    JobAttack("JSON: a list of 8 GiB", lambda honest: honest.sparse(".json", 2**33, b"["), DATA),
    JobAttack("a text of 60 MB in one row", lambda honest: honest.rows("word1 " * 10_000_000, rows=2), DATA, ANY_END),
    JobAttack(
        "data files elsewhere, absolute",
        _elsewhere(lambda honest: _files_of(str(honest.target.folder / "outside" / "train.jsonl"))),
        DATA,
        ANY_END,
        row="C1",
    ),
    JobAttack(
        "data files elsewhere, upward",
        _elsewhere(lambda _honest: _files_of("../../../**/train.jsonl")),
        DATA,
        ANY_END,
        row="C1",
    ),
    JobAttack(
        "data files elsewhere, by a URL",
        _elsewhere(lambda _honest: _files_of("https://evil.example/train.jsonl")),
        DATA,
        ANY_END,
        row="C1",
    ),
    JobAttack("data files of a home", _elsewhere(lambda _honest: _files_of("~/.ssh/*")), DATA, ANY_END, row="C1"),
    JobAttack("images named by a path outside", _image_path, DATA, row="C1"),
    JobAttack("an image of 100,000 x 100,000", lambda honest: honest.images(lambda: png(100_000, 100_000)), DATA),
    JobAttack("an image of 2^31 x 2^31", lambda honest: honest.images(lambda: png(2**31 - 1, 2**31 - 1)), DATA),
    JobAttack("an image that is as large as it says", lambda honest: honest.images(lambda: png_bomb(16_000)), DATA),
    JobAttack("an image of no size", lambda honest: honest.images(lambda: png(0, 0)), DATA),
    JobAttack("TIFF that says PNG", lambda honest: honest.images(tiff), DATA),
    JobAttack("an animation of a thousand frames", lambda honest: honest.images(lambda: webp(1000), "a.webp"), DATA, ANY_END),
    JobAttack("an image cut off", _jpeg, DATA),
]
