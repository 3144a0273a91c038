"""A Debian package's section from its short description, as apt's lists have both. Split by source package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.held_out.rows import Labelled, Size, Splits, classified

_LEAST_WORDS = 3


def sections(lines: Iterable[str], size: Size) -> Splits:
    """Make the task of paragraphs such as ``apt-cache dumpavail`` prints.

    A source package gives one row a section, as its packages' descriptions differ by a word.
    """
    found: dict[tuple[str, str], Labelled] = {}
    for fields in sorted(_paragraphs(lines), key=lambda fields: fields.get("Package", "")):
        text, section = fields.get("Description", ""), fields.get("Section", "").rpartition("/")[2]
        if len(text.split()) >= _LEAST_WORDS and section:
            source = fields.get("Source", fields["Package"]).split()[0]
            found.setdefault((source, section), Labelled(source, text, section))
    return classified(list(found.values()), size)


def _paragraphs(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the fields of each package; lines that continue a field are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line.strip():
            if "Package" in fields:
                yield fields
            fields = {}
        elif not line[0].isspace():
            name, _, value = line.partition(":")
            fields[name.removesuffix("-en")] = value.strip()
    if "Package" in fields:
        yield fields
