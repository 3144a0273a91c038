"""Texts that users name: plain files, JSON lines, or folders of such. Bounded, torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from pruning_core.data.faults import not_utf8
from pruning_core.errors import DatasetInvalid
from pruning_core.files.bounded_json import JsonRefused, parse_json
from pruning_core.files.paths import is_local

SUFFIXES = (".txt", ".jsonl")
# More than the ledger reads of any tokens: 512 blocks and as many items.
MOST_BYTES = 2**20
# A token has a byte at least, and an interval needs ten blocks.
BLOCK = 64
LEAST_BLOCKS = 10
# Embedders are judged on pieces, in two halves each: of so many words, or letters where no spaces part the words.
PIECE_WORDS, PIECE_LETTERS = 48, 160
_LEAST_WORDS = 16
LEAST_PIECES = 10
LEAST_BYTES = BLOCK * LEAST_BLOCKS
_MOST_FILES = 1000


def read_texts(place: str, param: str, *, least: int = LEAST_BYTES) -> list[str]:
    """Read texts, up to `MOST_BYTES` in all.

    Args:
        place: A file, or a folder, whose files are read in the order of their names.
        param: Field of the spec that names it.
        least: Bytes that the ledger needs of it; 1: any text is enough.

    Raises:
        DatasetInvalid: There is no text that can be read, or too little of it.
    """
    if not is_local(place):
        raise DatasetInvalid(f"a text is given by a path that begins with /, ./ or ~; got {place[:64]!r}", param=param)
    found: list[str] = []
    left = MOST_BYTES
    for file in _files(Path(place).expanduser(), param):
        data = _read(file, left, param)
        found += _texts(file, data, cut=len(data) == left, param=param)
        left -= len(data)
        if left <= 0:
            break
    size = sum(len(text.encode()) for text in found)
    if size < least == 1:
        raise DatasetInvalid("the text is empty", param=param)
    if size < least:
        said = "is empty" if not size else f"has {size} bytes"
        raise DatasetInvalid(
            f"the text {said}, and the ledger needs {LEAST_BLOCKS} blocks of {BLOCK} tokens, at least {least} bytes; "
            "give more of it",
            param=param,
        )
    return found


def pieces_of(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Cut texts into pieces, and each piece into two halves. Pieces that are alike count once."""
    found: list[tuple[str, str]] = []
    for text in texts:
        words = text.split()
        if len(text) > 20 * max(1, len(words)):  # Chinese, Japanese, Thai: letters are cut
            pieces = [text[at : at + PIECE_LETTERS] for at in range(0, len(text), PIECE_LETTERS)]
            found += [(own[: len(own) // 2], own[len(own) // 2 :]) for own in pieces if len(own) >= PIECE_LETTERS // 2]
            continue
        runs = [words[at : at + PIECE_WORDS] for at in range(0, len(words), PIECE_WORDS)]
        found += [(" ".join(own[: len(own) // 2]), " ".join(own[len(own) // 2 :])) for own in runs if len(own) >= _LEAST_WORDS]
    return list(dict.fromkeys(found))


def note_on_pieces(name: str, pieces: int) -> str | None:
    """Say that a text is too short to judge an embedder by; None where it is long enough."""
    if pieces >= LEAST_PIECES:
        return None
    counted = f"{pieces or 'no'} {'piece' if pieces == 1 else 'pieces'}"
    return (
        f"ledger, {name}: {counted} of {PIECE_WORDS} words (or {PIECE_LETTERS} letters where no spaces part the words) that "
        f"differ, where an interval needs {LEAST_PIECES}; give more text"
    )


def _files(path: Path, param: str) -> list[Path]:
    try:
        if path.is_dir():
            entries = sorted(own for own in path.iterdir() if own.suffix.lower() in SUFFIXES and own.is_file())
            if len(entries) > _MOST_FILES:
                raise DatasetInvalid(f"the folder has more than {_MOST_FILES} files of text; join them", param=param)
            if entries:
                return entries
            raise DatasetInvalid(f"the folder holds no file that ends in {' or '.join(SUFFIXES)}", param=param)
        if not path.is_file():
            raise DatasetInvalid("there is no such file or folder of text", param=param)
    except OSError:
        raise DatasetInvalid("the text cannot be read by this machine", param=param) from None
    if path.suffix.lower() not in SUFFIXES:
        raise DatasetInvalid(f"{path.name} must end in {' or '.join(SUFFIXES)}: texts are read from such files", param=param)
    return [path]


def _read(path: Path, most: int, param: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        raise DatasetInvalid(f"{path.name} cannot be read by this machine", param=param) from None


def _texts(path: Path, data: bytes, *, cut: bool, param: str) -> list[str]:
    """Decode texts; what was cut in the middle of a character or of a line ends before it."""
    if cut:
        data = data[: data.rfind(b"\n") + 1] or data
    try:
        text = data.decode("utf-8", errors="ignore" if cut else "strict").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise not_utf8(path.name, param) from None
    if "\0" in text:
        raise DatasetInvalid(f"{path.name} holds binary data, and is no text", param=param)
    return list(_lines(path, text, param)) if path.suffix.lower() == ".jsonl" else [text] if text.strip() else []


def _lines(path: Path, text: str, param: str) -> Iterator[str]:
    """Yield the text of each line: a string, or the string ``text`` of an object."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = parse_json(line.encode())
        except JsonRefused as error:
            raise DatasetInvalid(f"line {number} of {path.name} {error}", param=param) from None
        own = cast("dict[str, object]", value).get("text") if isinstance(value, dict) else value
        if not isinstance(own, str):
            raise DatasetInvalid(f'line {number} of {path.name} has no text: give {{"text": "..."}} in each line', param=param)
        if own.strip():
            yield own
