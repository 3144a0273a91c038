"""Mutations of files as such, whatever they hold, and of folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

_CHOSEN = 1_000_003  # a prime, so that an index reaches every byte of a file


def _truncate(path: Path, index: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: (index * 7919) % max(1, len(data))])


def _flip(path: Path, index: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[(index * _CHOSEN) % len(data)] ^= 1 << (index % 8)
    path.write_bytes(data)


def _noise(path: Path, index: int) -> None:
    data = bytearray(path.read_bytes())
    at = (index * _CHOSEN) % max(1, len(data))
    data[at : at + 16] = bytes((index * 37 + i * 91) % 256 for i in range(16))
    path.write_bytes(data)


def _zeros(path: Path, index: int) -> None:
    data = bytearray(path.read_bytes())
    at = (index * _CHOSEN) % max(1, len(data))
    data[at:] = bytes(len(data) - at)
    path.write_bytes(data)


def _transcode(path: Path, index: int) -> None:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    name = ("utf-16", "utf-8-sig", "utf-32", "latin-1", "cp1252", "utf-16-be")[index % 6]
    path.write_bytes(text.replace("word1", "w\u00f6rd1").encode(name, "replace"))


def _lines(path: Path, index: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\n", (b"\r\n", b"\r", b"\n\n", b"")[index % 4]))


def _twice(path: Path, _index: int) -> None:
    path.write_bytes(path.read_bytes() * 2)


def _empty(path: Path, index: int) -> None:
    path.write_bytes((b"", b"\n", b"{}", b"[]", b"null", b"\0" * 100)[index % 6])


def _delete(path: Path, _index: int) -> None:
    path.unlink()


def _folder(path: Path, _index: int) -> None:
    path.unlink()
    path.mkdir()


def _pointer(path: Path, index: int) -> None:
    """Put Git LFS's pointer in its place, as clones without LFS have it."""
    size = path.stat().st_size
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{index:064x}\nsize {size}\n", encoding="utf-8")


def _dangling(path: Path, _index: int) -> None:
    path.unlink()
    path.symlink_to("../blobs/not-there")


def _rename(path: Path, index: int) -> None:
    stem, suffix = path.stem, path.suffix
    names = (f"{stem}{suffix}.bak", f"{stem}-old{suffix}", f"{path.name.upper()}", f"{stem} (1){suffix}", stem)
    path.rename(path.with_name(names[index % len(names)]))


OPERATIONS: Mapping[str, Callable[[Path, int], None]] = {
    "truncate": _truncate,
    "flip": _flip,
    "noise": _noise,
    "zeros": _zeros,
    "transcode": _transcode,
    "lines": _lines,
    "twice": _twice,
    "empty": _empty,
    "delete": _delete,
    "folder": _folder,
    "pointer": _pointer,
    "dangling": _dangling,
    "rename": _rename,
}

# Files that lie beside others at people's, by name, and what is in them.
_STRANGERS: tuple[tuple[str, bytes], ...] = (
    ("model/pytorch_model.bin", b"PK\x03\x04not a pickle"),
    ("model/modeling_mine.py", b"raise SystemExit('code of a model was run')\n"),
    ("model/adapter_config.json", b'{"peft_type": "LORA", "base_model_name_or_path": "x/y"}'),
    ("model/model.safetensors.index.json", b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'),
    ("model/model-00001-of-00001.safetensors", b"\x02\0\0\0\0\0\0\0{}"),
    ("model/.DS_Store", b"\0\0\0\1Bud1"),
    ("model/generation_config.json", b'{"max_length": -1, "num_beams": "four"}'),
    ("model/tokenizer.model", b"not a model"),
    ("model/spm.model", b"not a model"),
    ("model/vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword1\n"),
    ("model/vocab.json", b'{"a": 0}'),
    ("model/merges.txt", b"#version: 0.2\na b\n"),
    ("model/added_tokens.json", b'{"<extra>": 67}'),
    ("model/added_tokens.json", b'{"<extra>": 9999999}'),
    ("model/special_tokens_map.json", b'{"pad_token": "<nowhere>"}'),
    ("model/special_tokens_map.json", b'{"pad_token": {"content": "[PAD]"}, "mask_token": 5}'),
    ("model/chat_template.jinja", b"{% for m in messages %}{{ m.content }}"),
    ("model/README.md", b"---\nlicense: [1, {a: b}]\n---\n"),
    ("model/README.md", b"---\nlicense: !!python/object:os.system x\n---\n"),
    ("model/LICENSE", b"\xff\xfe\0"),
    (
        "data/README.md",
        b"---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names: 5\n---\n",
    ),
    ("data/README.md", b"---\nconfigs:\n- config_name: default\n  data_files: [{split: train, path: nowhere/*}]\n---\n"),
    ("data/README.md", b"---\n: : :\n- [\n---\n"),
    ("data/dataset_dict.json", b'{"splits": ["train", "validation"]}'),
    ("data/dataset_info.json", b'{"features": []}'),
    ("data/state.json", b"{}"),
    ("data/train.csv", b"text,label\nword1,0\n"),
    ("data/test.jsonl", b'{"text": "word1", "label": 0}\n'),
    ("data/train-00001-of-00002.parquet", b"PAR1PAR1"),
    ("data/data/train-00000-of-00001.parquet", b"PAR1"),
    ("data/.gitattributes", b"*.parquet filter=lfs\n"),
)


def add_stranger(folder: Path, index: int) -> None:
    """Put a file there that other tools leave."""
    name, content = _STRANGERS[index % len(_STRANGERS)]
    path = folder / name
    if path.parent.is_dir() or path.parent.parent.is_dir():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def rearrange(folder: Path, index: int) -> None:
    """Move the files of the data set, or of the model, to where other tools have them."""
    data, model = folder / "data", folder / "model"
    match index % 5:
        case 0:
            _move(data, data / "data")
        case 1:
            _move(data, data / "default")
        case 2:
            snapshot = model / "snapshots" / ("a" * 40)
            _move(model, snapshot)
            (model / "refs").mkdir(exist_ok=True)
            (model / "refs" / "main").write_text("a" * 40)
        case 3:
            _move(model, model / "checkpoint-500")
        case _:
            for path in list(data.iterdir()):
                own = data / path.stem
                if path.is_file() and not own.exists():
                    own.mkdir()
                    path.rename(own / path.name)


def _move(folder: Path, inner: Path) -> None:
    if inner.exists():
        return
    found = list(folder.iterdir())
    inner.mkdir(parents=True)
    for path in found:
        shutil.move(path, inner / path.name)


def duplicate_key(path: Path, index: int) -> None:
    """Write a key of a JSON object twice, the second time with another value: parsers take the last."""
    text = path.read_text(encoding="utf-8")
    said = json.loads(text)
    if isinstance(said, dict) and said:
        key = sorted(said)[index % len(said)]
        path.write_text(text.rstrip()[:-1] + f', "{key}": {(0, "null", "[]", 99)[index % 4]}}}', encoding="utf-8")
