"""Files that list tokens, as tokenizers spell them: one a line, or JSON. Bounded, torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pruning_core.data.faults import not_utf8
from pruning_core.errors import DatasetInvalid
from pruning_core.files.bounded_json import JsonRefused, parse_json
from pruning_core.files.paths import is_local

_SUFFIXES = (".txt", ".json")
_MOST_BYTES = 16 * 2**20


def read_tokens(place: str, param: str) -> list[str]:
    """Read a list of tokens.

    Args:
        place: A file: .txt with a token in each line, or .json with a list of tokens or a map from tokens to ids.
        param: Field of the spec that names it.

    Raises:
        DatasetInvalid: There is no such file, or it lists no tokens.
    """
    path = _file_of(Path(place).expanduser())
    if not is_local(place) or path.suffix.lower() not in _SUFFIXES:
        raise DatasetInvalid(
            f"give seen, a list of languages, or the path of a file of tokens that ends in .txt or .json; got {place[:64]!r}",
            param=param,
        )
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError:
        raise DatasetInvalid("there is no such file of tokens that this machine can read", param=param) from None
    if len(data) > _MOST_BYTES:
        raise DatasetInvalid(f"the file of tokens has more than {_MOST_BYTES:,} bytes", param=param)
    found = _of_json(data, param) if path.suffix.lower() == ".json" else _of_lines(path.name, data, param)
    if not found:
        raise DatasetInvalid("the file lists no token", param=param)
    return list(dict.fromkeys(found))


def _file_of(path: Path) -> Path:
    """Return the only list in a folder, as an upload is one; else the path itself."""
    found = [own for own in path.iterdir() if own.suffix.lower() in _SUFFIXES] if path.is_dir() else []
    return found[0] if len(found) == 1 else path


def _of_lines(name: str, data: bytes, param: str) -> list[str]:
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise not_utf8(name, param) from None
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]


def _of_json(data: bytes, param: str) -> list[str]:
    try:
        found = parse_json(data)
    except JsonRefused as error:
        raise DatasetInvalid(f"the file of tokens {error}", param=param) from None
    tokens = list(cast("dict[str, object]", found)) if isinstance(found, dict) else found
    if not isinstance(tokens, list) or not all(isinstance(own, str) for own in cast("list[object]", tokens)):
        raise DatasetInvalid("the file of tokens must hold a list of tokens, or a map from tokens to ids", param=param)
    return cast("list[str]", tokens)
