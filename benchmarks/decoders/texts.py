"""English text of Debian packages: one book to calibrate and to validate on, and others that nothing is calibrated on.

* handbook: Debian's administrator's handbook, paragraphs in fours; one file in five is held out.
* rfc, manual: prose of RFCs and of the manual's sections on C, which no calibration and no choice of a default has seen.
* novels: Jane Austen's, for the final table alone.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import struct
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.held_out.packages import unpack
from benchmarks.held_out.rows import in_order

BLOCK = 256
# Characters of a text of which blocks are taken, evenly spaced: several times as many as the blocks have.
_ENOUGH = 400_000
# Shorter paragraphs are headings, commands and captions; an RFC's are tables as well.
_LEAST, _LEAST_OF_PROSE = 81, 200
_EACH = 4
_PROSE = 0.75


@dataclass(frozen=True, slots=True)
class Text:
    """A text to judge on.

    Attributes:
        name: Short name.
        package: Debian's package.
        component: Part of the archive that has the package.
        inside: Folder of its files within the package.
        read: Returns paragraphs from that folder.
        blocks: Number of blocks.
        final: Whether it is for the final table alone.
        length: Tokens of a block.
    """

    name: str
    package: str
    component: str
    inside: str
    read: Callable[[Path], Iterable[str]]
    blocks: int
    final: bool = False
    length: int = BLOCK


def write_handbook(folder: Path, fetched: Path) -> Path:
    """Write train.jsonl and validation.jsonl with a column text, unless they are there. Files are split, not paragraphs."""
    if not (folder / "validation.jsonl").is_file():
        pages = sorted(_files(fetched, HANDBOOK).glob("*.html"))
        random.Random(0).shuffle(pages)  # noqa: S311 - rows of a benchmark, no secret
        cut = int(0.8 * len(pages))
        folder.mkdir(parents=True, exist_ok=True)
        for split, own in (("train", pages[:cut]), ("validation", pages[cut:])):
            rows = [row for page in own for row in rows_of_page(page)]
            lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def rows_of_page(page: Path) -> list[str]:
    """Return a page's paragraphs, four to a row."""
    from lxml import html

    found = html.parse(str(page)).xpath('//div[contains(concat(" ", @class, " "), " para ")]')
    paragraphs = [" ".join(own.text_content().split()) for own in found]
    paragraphs = [own for own in paragraphs if len(own) >= _LEAST]
    return ["\n\n".join(paragraphs[at : at + _EACH]) for at in range(0, len(paragraphs), _EACH)]


def texts_of(text: Text, data: Path, fetched: Path) -> list[str]:
    """Return the paragraphs of a text to judge on: those of the handbook that are held out, or the beginning of another's."""
    if text is HANDBOOK:
        lines = (write_handbook(data, fetched) / "validation.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["text"] for line in lines]
    found, length = [], 0
    for paragraph in text.read(_files(fetched, text)):
        found.append(paragraph)
        length += len(paragraph)
        if length >= _ENOUGH:
            break
    return found


def blocks_of(tokenizer: Any, texts: Sequence[str], count: int, length: int = BLOCK) -> list[array[int]]:
    """Join texts by end-of-text tokens, cut them into blocks, and return so many, evenly spaced.

    Raises:
        ValueError: There are fewer.
    """
    joined = array("l")
    for text in texts:
        joined.extend(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])
        joined.append(tokenizer.eos_token_id)
    whole = len(joined) // length
    if whole < count:
        raise ValueError(f"the text has {whole} blocks of {length} tokens, {count} are needed")
    places = [round(at * (whole - 1) / max(1, count - 1)) for at in range(count)]
    return [joined[place * length : (place + 1) * length] for place in places]


def digest_of(blocks: Iterable[array[int]]) -> str:
    """Return the sha256 of blocks."""
    return hashlib.sha256(json.dumps([list(block) for block in blocks]).encode()).hexdigest()


def prose_of_rfc(text: str) -> Iterator[str]:
    """Yield the paragraphs of an RFC that are prose: no page breaks, drawings, tables and lists of references."""
    pages = re.sub(r"\n+[^\n]*\[Page \d+\]\n\f?\n?[^\n]*\n", "\n\n", text.replace("\r", ""))
    for paragraph in re.split(r"\n\s*\n", pages):
        joined = " ".join(paragraph.split())
        lines = paragraph.strip("\n").splitlines()
        plain = not any(re.search(r"\S {3,}\S|\.{4}|[-+=|]{3}|^\s*\[", line) for line in lines)
        if plain and _is_prose(joined):
            yield joined


def prose_of_manual(text: str) -> Iterator[str]:
    """Yield the paragraphs of a manual page's source that are prose."""
    paragraph: list[str] = []
    shown = True  # not within an example, a declaration or a table
    for line in (*text.splitlines(), ".PP"):
        if line.startswith(('.\\"', "'")):
            continue
        shown = (shown and not line.startswith((".EX", ".nf", ".TS"))) or line.startswith((".EE", ".fi", ".TE"))
        if shown and (font := re.match(r"\.(?:BR|RB|BI|IB|IR|RI|B|I) (.*)", line)) is not None:
            joins = " " if line[2] == " " else ""
            paragraph.append(joins.join(own.strip('"') for own in re.findall(r'"[^"]*"|\S+', font[1])))
        elif line.startswith("."):
            joined = " ".join(_plain(" ".join(paragraph)).split())
            if _is_prose(joined):
                yield joined
            paragraph = []
        elif shown:
            paragraph.append(line)


def _plain(text: str) -> str:
    """Return a text without troff's escapes."""
    text = re.sub(r"\\f(?:\[\w*\]|\(\w\w|.)|\\[&/,|^%:]", "", text)
    text = re.sub(r"\\\*\([lr]q", '"', text)
    for escape, char in {"\\-": "-", "\\(aq": "'", "\\[aq]": "'", "\\(em": "-", "\\e": "\\", "\\ ": " ", "\\~": " "}.items():
        text = text.replace(escape, char)
    return text


def _is_prose(text: str) -> bool:
    letters = sum(char.isalpha() or char == " " for char in text)
    return len(text) >= _LEAST_OF_PROSE and letters >= _PROSE * len(text) and "\\" not in text


def _rfcs(folder: Path) -> Iterator[str]:
    """Yield prose of RFCs in an order that has nothing to do with their numbers, a dozen paragraphs of each."""
    files = {path.name: path for path in folder.rglob("rfc[0-9]*.txt.gz")}
    for name in in_order(files):
        with gzip.open(files[name], "rt", encoding="utf-8", errors="ignore") as file:
            yield from [*prose_of_rfc(file.read())][3:15]


def _manual(folder: Path) -> Iterator[str]:
    files = {f"{path.parent.name}/{path.name}": path for section in ("man2", "man3") for path in folder.glob(f"{section}/*.gz")}
    for name in in_order(files):
        with gzip.open(files[name], "rt", encoding="utf-8", errors="ignore") as file:
            yield from [*prose_of_manual(file.read())][:12]


def _novels(folder: Path) -> Iterator[str]:
    """Yield paragraphs of six novels, the beginnings of their middles."""
    for lines in strings_of_r((folder / "Rdata.rdb").read_bytes()):
        joined = "\n".join(lines)
        paragraphs = [" ".join(own.split()) for own in joined.split("\n\n")]
        prose = [own for own in paragraphs if _is_prose(own)]
        middle = len(prose) // 2
        yield from prose[middle : middle + 130]


def strings_of_r(data: bytes) -> Iterator[list[str]]:
    """Yield the vectors of strings in a database of R's (`tools:::makeLazyLoadDB`): compressed values, each after its size."""
    at = 0
    while at < len(data):
        stream = zlib.decompressobj()
        value = stream.decompress(data[at + 4 :])
        at = len(data) - len(stream.unused_data)
        # R's serialisation, version 3: 14 bytes, the name of the encoding, then the type of the value (16: strings).
        start = 14 + 4 + struct.unpack_from(">i", value, 14)[0]
        kind, count = struct.unpack_from(">ii", value, start)
        if kind & 0xFF != 16:
            continue
        place, found = start + 8, list[str]()
        for _ in range(count):
            length = struct.unpack_from(">i", value, place + 4)[0]
            found.append(value[place + 8 : place + 8 + max(0, length)].decode("utf-8"))
            place += 8 + max(0, length)
        yield found


def _files(fetched: Path, text: Text) -> Path:
    folder = fetched / text.package
    if not (folder / text.inside).is_dir():
        unpack(text.package, folder, text.component)
    return folder / text.inside


HANDBOOK = Text("handbook", "debian-handbook", "main", "usr/share/doc/debian-handbook/html/en-US", lambda _folder: (), 48)
RFC = Text("rfc", "doc-rfc-std", "non-free", "usr/share/doc/RFC", _rfcs, 24)
MANUAL = Text("manual", "manpages-dev", "main", "usr/share/man", _manual, 24)
NOVELS = Text("novels", "r-cran-janeaustenr", "main", "usr/lib/R/site-library/janeaustenr/data", _novels, 24, final=True)
TEXTS = (HANDBOOK, RFC, MANUAL, NOVELS)
