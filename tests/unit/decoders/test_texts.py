"""Texts of packages as they are cut into prose and blocks; made input, without a network."""

from __future__ import annotations

import struct
import textwrap
import zlib
from array import array
from pathlib import Path

import pytest

from benchmarks.decoders.texts import blocks_of, digest_of, prose_of_manual, prose_of_rfc, rows_of_page, strings_of_r

_LONG = "This document describes how a client asks a server for a resource, and what the server answers to it. " * 3


def test_prose_of_an_rfc_has_no_tables_and_no_page_breaks() -> None:
    lines = textwrap.wrap(_LONG, 70)
    body = (
        "\n   ".join(lines[:3]) + "\n\n\nKlensin     Standards Track       [Page 6]\n\x0c\nRFC 5321      SMTP     October\n\n"
    )
    table = "   +-----+-------+\n   | one | " + "two " * 80 + "|\n   +-----+-------+\n"
    dots = "   1. Introduction " + "." * 40 + " 3\n" * 20
    found = list(prose_of_rfc("   " + body + table + "\n\n" + dots + "\n\n   " + "\n   ".join(lines) + "\n"))
    assert found[-1].split() == _LONG.split()
    assert all("Klensin" not in own and "|" not in own and "...." not in own for own in found)
    assert len(found) == 2


def test_prose_of_a_manual_page_has_its_fonts_joined_and_no_declarations() -> None:
    page = (
        '.\\" a comment\n.TH open 2\n.SH NAME\nopen \\- open a file\n.SH DESCRIPTION\nThe\n.BR open ()\n'
        f"system call opens the file specified by\n.IR pathname .\n{_LONG}\n.PP\n.nf\n{_LONG}\n.fi\n"
        f".PP\n.EX\n{_LONG}\n.EE\n.PP\nshort\n"
    )
    (found,) = prose_of_manual(page)
    assert found.startswith("The open() system call opens the file specified by pathname. This document")


def test_paragraphs_of_a_page_come_in_fours(tmp_path: Path) -> None:
    words = "Debian is a distribution that many administrators have on their servers, for good reasons."
    paragraphs = "".join(f'<div class="para">{number} {words}</div>' for number in range(6))
    (tmp_path / "page.html").write_text(f'<html><body>{paragraphs}<div class="para">short</div></body></html>')
    rows = rows_of_page(tmp_path / "page.html")
    assert [len(row.split("\n\n")) for row in rows] == [4, 2]


def test_strings_of_a_database_of_r() -> None:
    def value(kind: int, strings: list[str]) -> bytes:
        head = b"X\n" + struct.pack(">iii", 3, 0x40201, 0x30500) + struct.pack(">i", 5) + b"UTF-8"
        body = b"".join(struct.pack(">ii", 0x40009, len(own.encode())) + own.encode() for own in strings)
        raw = head + struct.pack(">ii", kind, len(strings)) + body
        return struct.pack(">i", len(raw)) + zlib.compress(raw)

    data = value(16, ["EMMA", "", "caf\u00e9"]) + value(13, []) + value(16, ["PERSUASION"])
    assert list(strings_of_r(data)) == [["EMMA", "", "caf\u00e9"], ["PERSUASION"]]


class _Letters:
    eos_token_id = 0

    def __call__(self, text: str, **_options: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def test_blocks_are_whole_and_evenly_spaced() -> None:
    found = blocks_of(_Letters(), ["abc", "defg", "hijklmnop"], 2, 4)
    assert found == [array("l", [97, 98, 99, 0]), array("l", [107, 108, 109, 110])]
    with pytest.raises(ValueError, match="the text has 4 blocks of 4 tokens, 5 are needed"):
        blocks_of(_Letters(), ["abc", "defg", "hijklmnop"], 5, 4)
    assert digest_of(found) != digest_of(found[:1])
