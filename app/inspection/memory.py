"""Memory of inspections: the answer for a question about files that are the same as when it was answered.

Nothing is taken from the process that has looked. What it can have looked at is all that lies under the names in the question,
links followed within the allowed roots; of all of that, this process itself asks the file system what identifies it. No file
is opened here.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.inspection.protocol import CheckSpec, Resolved
from app.inspection.references import Confinement
from app.refusals import Refused
from pruning_core.files.paths import is_local
from pruning_core.spec.data_places import data_places

_MOST_ANSWERS = 1024
_LARGEST_ANSWER = 2**14  # letters of its JSON; ordinary ones have a thousand
_MOST_MEMBERS = 512  # of the folders of one question; what has more is looked at each time
# A file system's clock moves in steps: two changes within one leave the same time behind. Files that were changed less than
# this before they were looked at are looked at again.
_SETTLED_NS = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Imprint:
    """What identifies the files that a question is about.

    Attributes:
        digest: Of the path of each, where links lead, its device, inode, kind, size, and times of changes of content and of
            attributes.
        changed_ns: When the latest of them was changed, in nanoseconds since the epoch.
    """

    digest: bytes
    changed_ns: int


class Memory:
    """A bounded number of answers to questions about specs; those used longest ago are forgotten first. Safe for threads.

    Args:
        most: Number of answers.
    """

    def __init__(self, most: int = _MOST_ANSWERS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[bytes, Resolved]] = OrderedDict()

    def knows(self, key: bytes) -> bool:
        """Return whether there is an answer to a question, for whatever files."""
        return key in self._known

    def answer(self, key: bytes, imprint: Imprint | None) -> Resolved | None:
        """Return the answer to a question about files, if it is known and they are the same ones."""
        with self._lock:
            found = self._known.get(key)
            if found is None or imprint is None or found[0] != imprint.digest:
                return None
            self._known.move_to_end(key)
            return found[1]

    def keep(self, key: bytes, answer: Resolved, before: Imprint | None, after: Imprint | None, *, since_ns: int) -> None:
        """Remember an answer, unless the files may have changed while it was found.

        Args:
            key: Of the question.
            answer: The answer.
            before: Of the files, before they were looked at; None: that is not known.
            after: Of the files, afterwards.
            since_ns: When ``before`` was begun, in nanoseconds since the epoch.
        """
        if before is None or before != after or before.changed_ns > since_ns - _SETTLED_NS:
            return
        if len(answer.model_dump_json()) > _LARGEST_ANSWER:
            return
        with self._lock:
            self._known[key] = (before.digest, answer)
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)


def key_of(question: CheckSpec, owner: str) -> bytes:
    """Name a question. All that the answer can depend on but the files is in it; no tenant's is another's."""
    return hashlib.sha256(f"{len(owner)} {owner} {question.model_dump_json()}".encode()).digest()


def imprint_of(question: CheckSpec) -> Imprint | None:
    """Identify the files that a question is about, as the process that answers it finds them, by their names and attributes.

    Nothing outside of what the question allows is touched, as `app.inspection.references` has it.

    Returns:
        None where they are too many, cannot be looked at, or the paths are refused: whoever looks at them says why.
    """
    digest, changed_ns = hashlib.sha256(), 0
    try:
        for count, (name, place) in enumerate(_places(question)):
            if count > _MOST_MEMBERS:
                return None
            try:
                found = os.lstat(place)
            except (FileNotFoundError, NotADirectoryError):
                digest.update(f"{name!r} {place!r} nothing\n".encode(errors="surrogatepass"))
                continue
            own = (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            digest.update(f"{name!r} {place!r} {own}\n".encode(errors="surrogatepass"))
            changed_ns = max(changed_ns, found.st_ctime_ns)
    except (OSError, Refused, ValueError):
        return None
    return Imprint(digest.digest(), changed_ns)


def now_ns() -> int:
    """Return the time by the clock that files are dated by, in nanoseconds since the epoch."""
    return time.time_ns()


def _places(question: CheckSpec) -> Iterator[tuple[str, str]]:
    """Yield what lies under the names in a question: the path of each file and folder, and where it is without links."""
    named = {"model": question.spec.model} | {own.param: own.reference for own in data_places(question.spec)}
    ours = Confinement(question.roots, question.closed, "")
    for field, reference in sorted(named.items()):
        if not is_local(reference):
            continue
        yield from _under(reference, _of_upload(reference) if field in question.uploaded else ours)


def _of_upload(reference: str) -> Confinement:
    return Confinement([Path(reference)], (), "")


def _under(reference: str, confinement: Confinement) -> Iterator[tuple[str, str]]:
    top = confinement.follow(reference)
    yield reference, str(top)
    for name, place in _in_order(confinement, top):
        yield str(name), str(place)
    if top.parent.name == "snapshots":  # of the Hub's cache: which of its snapshots is that of the main branch stands beside it
        branch = top.parent.parent / "refs" / "main"
        try:
            yield str(branch), str(confinement.follow(str(branch)))
        except Refused:
            return


def _in_order(confinement: Confinement, top: Path) -> Sequence[tuple[Path, Path]]:
    return sorted(confinement.members(top, _MOST_MEMBERS))
