"""Unpacking of archives from strangers. Names, kinds and sizes are checked before a byte is kept."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO, assert_never

from app.disk import free_bytes
from app.inspection.records import UploadedFile, UploadKind
from app.inspection.tar import Member, TarInvalid, members
from app.refusals import NoRoom, Refused
from pruning_core.files.paths import DATA_SUFFIXES, IMAGE_SUFFIXES, data_suffix

# Neither a dot nor a space ends a name: some systems drop both, and so take two names for one.
_PART = re.compile(r"[A-Za-z0-9_\-](?:[A-Za-z0-9_.\- ]{0,126}[A-Za-z0-9_\-])?", re.ASCII)
_MOST_FILES = 1000
_DEEPEST = 4
_WEIGHTS = (".safetensors", ".gguf")
_LARGEST_OTHER_BYTES = 64 * 2**20  # these files are parsed whole, so need a limit; tokenizers have tens of megabytes
_KINDS = {
    UploadKind.MODEL: (*_WEIGHTS, ".json", ".txt", ".model", ".spm", ".md", ".jinja"),
    UploadKind.DATASET: (*DATA_SUFFIXES, *IMAGE_SUFFIXES, ".md", ".txt"),
}
_LOOK_EVERY_BYTES = 64 * 2**20
_PACKED = (".gz", ".zst")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack", ".npy", ".npz")


def unpack(
    archive: IO[bytes], kind: UploadKind, folder: Path, *, max_bytes: int, min_free_bytes: int = 0
) -> tuple[UploadedFile, ...]:
    """Unpack an archive into an empty folder, and check the names, kinds and sizes of what is in it.

    Args:
        archive: A tar file, plain or compressed by gzip; seekable.
        kind: The kind of upload that it should be.
        folder: The folder to unpack into.
        max_bytes: Largest size of the unpacked files, however small the archive.
        min_free_bytes: Room that must stay on the disk.

    Raises:
        Refused: The archive is not an upload of this kind; the message has the reason.
        NoRoom: The disk has less room than must stay.
    """
    files: dict[str, UploadedFile] = {}
    spellings: dict[str, str] = {}
    left = max_bytes
    try:
        for member in members(archive):
            path = _safe(member.name, kind)
            if path in files:
                raise _refused(f"{path} is in the archive twice")
            _check_spelling(path, spellings)
            if len(files) >= _MOST_FILES:
                raise _refused(f"the archive holds more than {_MOST_FILES} files")
            left -= member.size
            if left < 0:
                raise Refused("upload_too_large", f"the files have more than {max_bytes} bytes together")
            if kind is UploadKind.MODEL and not path.endswith(_WEIGHTS) and member.size > _LARGEST_OTHER_BYTES:
                raise _refused(f"{path} has more than {_LARGEST_OTHER_BYTES} bytes, which only weights may have")
            files[path] = _write(member, path, folder, min_free_bytes)
    except TarInvalid as error:
        raise _refused(str(error)) from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        # The names are safe, but one of them may occur both as a file and as a folder.
        raise _refused("a name is used for a file and for a folder") from None
    found = _without_common_folder(folder, files)
    _check(kind, found)
    return found


def seal(folder: Path, kind: UploadKind, files: Sequence[UploadedFile]) -> None:
    """Insist that a folder holds exactly some files: the names, the sizes and the bytes.

    Content lies under its hash, for every tenant that has uploaded the same. The process that has unpacked a stranger's archive
    is not believed what it says of the hash: this is for one that has read none.

    Raises:
        ValueError: It holds something else.
    """
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                found[_safe(path.relative_to(folder).as_posix(), kind)] = path
            elif not stat.S_ISDIR(status.st_mode):
                raise ValueError("the folder holds what is no file of its own")
    if sorted(found) != sorted(file.path for file in files):
        raise ValueError("the folder holds other files")
    for file in files:
        with found[file.path].open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            if (content.tell(), digest) != (file.size, file.sha256):
                raise ValueError("a file has other bytes")


def content_id(kind: UploadKind, files: Sequence[UploadedFile]) -> str:
    """Return the id of some content. The same files have the same id, whoever sends them and however they are packed."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{file.path}\0{file.size}\0{file.sha256}\n".encode())
    return f"{kind.prefix}{digest.hexdigest()}"


def _safe(name: str, kind: UploadKind) -> str:
    """Check a member's name, and return its relative path."""
    parts = PurePosixPath(name).parts  # PurePosixPath drops ./
    if name.startswith("/") or not parts or len(parts) > _DEEPEST or not all(map(_PART.fullmatch, parts)):
        raise _refused(
            "a file of the archive has a name that is not taken: give relative names of letters, digits, _ - . and spaces"
        )
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _PACKED:  # what is within decides: archives and tables of pickles have other endings before it
        suffix = (PurePosixPath(name.lower()).with_suffix("").suffix or "") + suffix
    if PurePosixPath(suffix).stem in _PICKLES or suffix in _PICKLES:
        raise _refused(
            "the archive holds pickle files or the like, which can run code when loaded; convert them to safetensors"
        )
    if suffix not in _KINDS[kind]:
        taken = ", ".join(_KINDS[kind])
        raise _refused(f"the archive of a {kind} may hold {taken} and nothing else; leave the rest out")
    return "/".join(parts)


def _check_spelling(path: str, spellings: dict[str, str]) -> None:
    """Refuse names, of files and of folders, that differ in nothing but capital letters: to some systems they are one."""
    parts = path.split("/")
    for length in range(1, len(parts) + 1):
        name = "/".join(parts[:length])
        if spellings.setdefault(name.lower(), name) != name:
            raise _refused(f"{name} is in the archive in capital and in small letters; give each file one name")


def _write(member: Member, path: str, folder: Path, min_free_bytes: int) -> UploadedFile:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, unlooked = hashlib.sha256(), _LOOK_EVERY_BYTES
    with target.open("xb") as file:
        for chunk in member.chunks:
            unlooked += len(chunk)
            if unlooked >= _LOOK_EVERY_BYTES:
                unlooked = 0
                if free_bytes(folder) < min_free_bytes + len(chunk):
                    raise NoRoom.on_disk()
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return UploadedFile(path, member.size, digest.hexdigest())


def _without_common_folder(folder: Path, files: dict[str, UploadedFile]) -> tuple[UploadedFile, ...]:
    """Strip the folder that everything lies in: ``tar c minilm`` and ``tar c -C minilm .`` mean the same."""
    tops = {path.partition("/")[0] for path in files}
    if len(tops) == 1 and all("/" in path for path in files):
        (top,) = tops
        (folder / top).rename(folder / f".{top}")
        for child in (folder / f".{top}").iterdir():
            child.rename(folder / child.name)
        (folder / f".{top}").rmdir()
        files = {path.partition("/")[2]: file for path, file in files.items()}
    return tuple(UploadedFile(path, file.size, file.sha256) for path, file in sorted(files.items()))


def _check(kind: UploadKind, files: Sequence[UploadedFile]) -> None:
    if not files:
        raise _refused("the archive is empty")
    match kind:
        case UploadKind.DATASET:
            _check_dataset(files)
        case UploadKind.MODEL:
            pass  # an inspection of its own, with other limits: `pruning_core.checks`
        case _:
            assert_never(kind)


_LEDGER_SUFFIXES = (".txt", ".yaml", ".yml")


def _check_dataset(files: Sequence[UploadedFile]) -> None:
    splits = any(data_suffix(PurePosixPath(file.path).name) for file in files)
    # <split>/<class>/<image>
    images = any(file.path.lower().endswith(IMAGE_SUFFIXES) and file.path.count("/") == 2 for file in files)
    # Texts of a ledger, and tasks of lm-eval: pruning_core.spec.ledger
    others = any(file.path.lower().endswith(_LEDGER_SUFFIXES) for file in files)
    if not splits and not images and not others:
        raise _refused(
            f"the archive has no split of a data set: train and validation, each as one of {', '.join(DATA_SUFFIXES[:4])} or "
            "the like, or as a folder with a folder of images for each class"
        )


def _refused(message: str) -> Refused:
    return Refused("upload_invalid", message)
