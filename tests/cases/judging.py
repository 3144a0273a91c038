"""Judging what came of a case: what no case may show, and what its own expectations say.

Expectations are lines of a text file, ``expect.txt`` in the case's folder or ``expectations/NAME.txt`` here::

    # a comment
    rc 0                      exit code of run.sh; 0 where nothing is said
    limit 600                 seconds that it may take
    needs sentencepiece       a module, or lib-NAME: without it the case is skipped
    [max]                     what follows is about the part of the output after a line "== max..."; [] is about all of it
    [max if lib-name]         ... where a library lies beside the cases
    + REGEX                   stands in the output (of several lines: ^ and $ are of lines)
    - REGEX                   does not
    ~ 1e-4 REGEX              wherever it stands, its groups are equal numbers, within the tolerance

An ``expected.json`` holds the same as ``{"rc": 0, "must": [...], "must_not": [...]}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from coppice.console import ExitCode
from tests.cases.running import ROOT, Ran

OURS = Path(__file__).parent / "expectations"
_RULE = re.compile(r"^(?P<sign>[+~-]) (?P<rest>.*)$")
_SECTION = re.compile(r"^\[(?P<name>.*?) ?(?:if (?P<library>lib-[\w-]+))?\]$")
_BLOCK = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*.*$", re.MULTILINE)
_HOW = {"--out", "--json"}  # options that say where the result goes, not what is asked


@dataclass(frozen=True)
class Rule:
    """One expectation."""

    sign: Literal["+", "-", "~"]
    pattern: re.Pattern[str]
    section: str = ""
    library: str | None = None
    tolerance: float = 0.0


@dataclass(frozen=True)
class Expectations:
    """All of a case's."""

    rules: tuple[Rule, ...] = ()
    code: int = 0
    limit_s: float | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """``passed``, ``failed`` or ``skipped``, and the line that decides."""

    word: Literal["passed", "failed", "skipped"]
    line: str


def expectations_of(case: Path) -> Expectations | None:
    """Read a case's expectations: its own, or ours by its name; None where nobody wrote any."""
    if (own := case / "expected.json").is_file():
        said = json.loads(own.read_text(encoding="utf-8"))
        rules = [Rule("+", _compiled(text)) for text in said.get("must", ())]
        rules += [Rule("-", _compiled(text)) for text in said.get("must_not", ())]
        return Expectations(tuple(rules), int(said.get("rc", 0)))
    for path in (case / "expect.txt", OURS / f"{case.name}.txt"):
        if path.is_file():
            return read_expectations(path.read_text(encoding="utf-8"))
    return None


def read_expectations(text: str) -> Expectations:
    """Read the text of a file of expectations.

    Raises:
        ValueError: A line is none.
    """
    rules: list[Rule] = []
    section, library, code, limit_s, needs = "", None, 0, None, []
    for line in text.splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if found := _SECTION.match(line):
            section, library = found["name"], found["library"]
        elif found := _RULE.match(line):
            sign, rest, tolerance = found["sign"], found["rest"], 0.0
            if sign == "~":
                number, rest = rest.split(" ", 1)
                tolerance = float(number)
            rules.append(Rule(sign, _compiled(rest), section, library, tolerance))
        elif words[0] == "rc" and len(words) == 2:
            code = int(words[1])
        elif words[0] == "limit" and len(words) == 2:
            limit_s = float(words[1])
        elif words[0] == "needs" and len(words) == 2:
            needs.append(words[1])
        else:
            raise ValueError(f"no expectation: {line!r}")
    return Expectations(tuple(rules), code, limit_s, tuple(needs))


def _compiled(text: str) -> re.Pattern[str]:
    return re.compile(text, re.MULTILINE)


def lacking(expected: Expectations, missing: tuple[str, ...]) -> str | None:
    """Name a module that a case can't be run without, where it is neither installed nor beside the cases."""
    for name in expected.needs:
        if find_spec(name) is None and f"lib-{name}" in missing:
            return name
    return None


def judge(ran: Ran, expected: Expectations | None) -> Verdict:
    """Judge what came of a case."""
    if ran.code is None:
        return Verdict("failed", "its time was up")
    refusal = None if expected else _refusal(ran)
    usual = Expectations(code=0 if refusal is None else ExitCode.BAD_INPUT)
    problem = next(_problems(ran, expected or usual), None)
    if problem is not None:
        return Verdict("failed", problem)
    unlooked = f" ({', '.join(ran.missing)} not installed, part skipped)" if ran.missing else ""
    last = (ran.output.strip().splitlines() or [""])[-1] if refusal is None else f"refused: {refusal}"
    return Verdict("passed", (f"as expected{unlooked}" if expected else f"no expectation{unlooked}; {last}"))


def _problems(ran: Ran, expected: Expectations) -> Iterator[str]:
    for call in ran.calls:
        if call.traceback is not None:
            yield f"traceback: {call.traceback.strip().splitlines()[-1]}"
    for text in (ran.output, *ran.logs.values()):
        for block in _BLOCK.findall(text):
            if f'"{ROOT}/' in block:  # a case's own script may end in one where there is no bundle to read
                yield f"traceback: {block.strip().splitlines()[-1]}"
        if internal := re.search(r"^.*(\binternal\b).*$", text, re.MULTILINE):
            yield f"internal: {internal[0].strip()}"
    yield from _refused_later(ran)
    yield from (problem for rule in expected.rules if (problem := _broken(rule, ran)) is not None)
    if ran.code != expected.code:
        last = (ran.output.strip().splitlines() or [""])[-1]
        yield f"run.sh ended with {ran.code}: {last}"


def _refusal(ran: Ran) -> str | None:
    """Return the sentence by which the last command refused its input, and run.sh with it; None where it did not end so.

    Whether that is what a case is for, only its expectations can say: without any, an answer that users can act on will do.
    """
    if not ran.calls or ran.calls[-1].traceback is not None or not ran.code == ran.calls[-1].code == ExitCode.BAD_INPUT:
        return None
    return next(iter(_errors(ran)[::-1]), None)


def _errors(ran: Ran) -> list[str]:
    """List the sentences of `coppice`'s errors, in the output and in the logs."""
    texts = (*ran.logs.values(), ran.output)
    return [line.removeprefix("error: ") for text in texts for line in text.splitlines() if line.startswith("error: ")]


def _refused_later(ran: Ran) -> Iterator[str]:
    """Find jobs that were refused after ``check`` had taken the very same request."""
    taken: set[tuple[str, ...]] = set()
    for call in ran.calls:
        asked = (call.path, *_asked(call.arguments[1:]))
        if call.arguments[:1] == ("check",) and call.code == ExitCode.OK:
            taken.add(asked)
        elif call.arguments[:1] == ("run",) and call.code == ExitCode.BAD_INPUT and asked in taken:
            said = _errors(ran)
            yield f"the job refused what check took: {said[-1] if said else ' '.join(call.arguments)}"


def _asked(arguments: tuple[str, ...]) -> Iterator[str]:
    for before, one in zip(("", *arguments), arguments, strict=False):
        if one not in _HOW and before != "--out":
            yield one


def _broken(rule: Rule, ran: Ran) -> str | None:
    if rule.library in ran.missing:
        return None
    text, where = _part(ran.output, rule.section), f" in {rule.section}" if rule.section else ""
    match rule.sign:
        case "+":
            if rule.pattern.search(text) is None:
                last = (text.strip().splitlines() or ["nothing"])[-1]
                return f"lacks{where} /{rule.pattern.pattern}/; the last line there: {last}"
        case "-":
            if (found := rule.pattern.search(text)) is not None:
                return f"shows{where}: {found[0].strip()}"
        case "~":
            for found in rule.pattern.finditer(text):
                numbers = [float(group) for group in found.groups()]
                if max(numbers) - min(numbers) > rule.tolerance:
                    return f"differ{where}: {found[0].strip()}"
    return None


def _part(output: str, section: str) -> str:
    """Return the lines between a line ``== SECTION...`` and the next such line."""
    if not section:
        return output
    kept, is_inside = [], False
    for line in output.splitlines():
        if line.startswith("== "):
            is_inside = line.removeprefix("== ").startswith(section)
        elif is_inside:
            kept.append(line)
    return "\n".join(kept)
