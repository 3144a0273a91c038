"""How cases are run and judged; and our own cases."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.cases.__main__ import Row, cases_in, table, try_case
from tests.cases.judging import OURS, Verdict, expectations_of, judge, read_expectations
from tests.cases.running import ROOT, Call, Ran, run_case

OWN = cases_in(Path(__file__).parent / "own")
QUICK = ("adapter-folder", "missing-shard", "misspelt-field")


def ran(output: str = "", *calls: Call, code: int | None = 0, missing: tuple[str, ...] = (), **logs: str) -> Ran:
    return Ran(output, logs, calls, code, 1.0, missing)


def called(command: str, *arguments: str, code: int = 0, traceback: str | None = None, path: str = "") -> Call:
    return Call((command, *arguments), code, traceback, path)


@pytest.mark.parametrize("path", sorted(OURS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_file_of_expectations_can_be_read(path: Path) -> None:
    assert read_expectations(path.read_text(encoding="utf-8")).rules


def test_every_own_case_says_what_is_expected() -> None:
    assert len(OWN) > 10
    for case in OWN:
        expected = expectations_of(case)
        assert expected is not None, case.name
        assert expected.rules, case.name


def test_a_line_that_is_no_expectation_is_refused() -> None:
    with pytest.raises(ValueError, match="no expectation: 'expect more'"):
        read_expectations("expect more")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (ran(code=None), "its time was up"),
        (ran("boom", code=3), "run.sh ended with 3: boom"),
        (ran("", called("run", traceback="Traceback ...\nIndexError: 3", code=1)), "traceback: IndexError: 3"),
        (ran("code `internal`"), "internal: code `internal`"),
        (ran(log="failed: internal\n"), "internal: failed: internal"),
        (
            ran(
                log="Traceback (most recent call last):\n"
                f'  File "{ROOT}/pruning_core/a.py", line 1, in f\n    f()\nKeyError: 1\n'
            ),
            "traceback: KeyError: 1",
        ),
        (
            ran("", called("check", "--model", "m"), called("run", "--model", "m", "--out", "o", code=2)),
            "the job refused what check took: run --model m --out o",
        ),
    ],
)
def test_what_no_case_may_show(found: Ran, says: str) -> None:
    assert judge(found, None) == Verdict("failed", says)


@pytest.mark.parametrize(
    "found",
    [
        ran('Traceback (most recent call last):\n  File "<stdin>", line 1\nOSError: no bundle\n'),  # of the case's own script
        ran("", called("check", "--model", "m", code=2), called("run", "--model", "m", code=2)),
        ran("", called("check", "--model", "m", path="a"), called("run", "--model", "m", path="b", code=2)),
        ran("", called("check", "--model", "m"), called("run", "--model", "m", code=1)),  # a floor that was missed
        ran("error: the label 7 is none", called("run", "--model", "m", code=2), code=2),
    ],
)
def test_what_a_case_may_show(found: Ran) -> None:
    assert judge(found, None).word == "passed"


REFUSED = "== two\nerror: the label 7 is none of the model's\nbye\n"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (
            ran(REFUSED, called("prune", code=2), code=2),
            ("passed", "no expectation; refused: the label 7 is none of the model's"),
        ),
        (
            ran("", called("run", code=2), code=2, log=REFUSED),
            ("passed", "no expectation; refused: the label 7 is none of the model's"),
        ),
        (ran("no sentence", called("run", code=2), code=2), ("failed", "run.sh ended with 2: no sentence")),
        (ran(REFUSED, called("run", code=2), called("check"), code=2), ("failed", "run.sh ended with 2: bye")),
        (ran(REFUSED, called("run", code=1), code=1), ("failed", "run.sh ended with 1: bye")),
        (ran(REFUSED, code=2), ("failed", "run.sh ended with 2: bye")),
        (
            ran(REFUSED, called("run", code=2, traceback="Traceback ...\nKeyError: 1"), code=2),
            ("failed", "traceback: KeyError: 1"),
        ),
    ],
)
def test_a_refusal_in_the_end_is_an_answer_where_nobody_wrote_what_is_expected(found: Ran, verdict: tuple[str, str]) -> None:
    assert judge(found, None) == Verdict(*verdict)


def test_a_refusal_in_the_end_is_none_that_was_expected() -> None:
    found = ran(REFUSED, called("prune", code=2), code=2)
    assert judge(found, read_expectations("+ label 7")).line == "run.sh ended with 2: bye"
    assert judge(found, read_expectations("rc 2\n+ label 7")).word == "passed"


EXPECTED = """
[one]
+ ^f1 0\\.430
- wrong
~ 1e-4 says ([\\d.]+) - get ([\\d.]+)
[ if lib-old]
+ old
"""


@pytest.mark.parametrize(
    ("output", "missing", "word"),
    [
        ("== one\nf1 0.430\nold", (), "passed"),
        ("== one\nf1 0.430", (), "failed"),
        ("== one\nf1 0.430", ("lib-old",), "passed"),
        ("== one: f1 0.430\nf1 0.5\n== two\nf1 0.430 old", (), "failed"),  # the number stands in another part
        ("== one\nf1 0.430 old\nwrong", (), "failed"),
        ("== one\nf1 0.430 old\nsays 0.90001 - get 0.90000", (), "passed"),
        ("== one\nf1 0.430 old\nsays 0.91 - get 0.90", (), "failed"),
    ],
)
def test_expectations_are_of_parts_of_the_output(output: str, missing: tuple[str, ...], word: str) -> None:
    assert judge(ran(output, missing=missing), read_expectations(EXPECTED)).word == word


def test_a_library_that_is_missing_is_said() -> None:
    assert (
        judge(ran(missing=("lib-old",)), read_expectations("- x")).line == "as expected (lib-old not installed, part skipped)"
    )


def test_the_table_counts() -> None:
    rows = [Row("a", Verdict("passed", "as expected"), 1.0, ""), Row("bb", Verdict("failed", "x" * 300), 2.0, "")]
    lines = table(rows).splitlines()
    assert lines[1].split() == ["a", "passed", "1.0", "as", "expected"]
    assert lines[2].endswith("x…")
    assert lines[-1] == "1 passed, 1 failed, 0 skipped"


def write_case(folder: Path, script: str) -> Path:
    case = folder / "cases" / "mine"
    case.mkdir(parents=True)
    (case / "run.sh").write_text(f'cd "$(dirname "$0")"\n{script}\n')
    return case


def test_a_case_is_copied_with_its_neighbours_and_called_commands_are_recorded(tmp_path: Path) -> None:
    case = write_case(
        tmp_path,
        'cat neighbour.txt; mkdir work; $COPPICE --version; PYTHONPATH=x $COPPICE nonsense 2>work/log; $PY -c "import coppice"',
    )
    (case.parent / "neighbour.txt").write_text("hello\n")
    place = tmp_path / "place"
    place.mkdir()
    found = run_case(case, place, libraries=(), limit_s=60)
    assert found.code == 0
    assert found.output.startswith("hello\ncoppice ")
    assert [(call.arguments, call.code, call.path) for call in found.calls] == [
        (("--version",), 0, ""),
        (("nonsense",), 2, "x"),
    ]
    assert "nonsense" in found.logs["log"]
    assert not (case / "work").exists()


def test_a_case_ends_in_time_with_all_that_it_started(tmp_path: Path) -> None:
    case = write_case(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pid\nsleep 300")
    place = tmp_path / "place"
    place.mkdir()
    begun = time.monotonic()
    assert run_case(case, place, libraries=(), limit_s=1).code is None
    assert time.monotonic() - begun < 20
    assert _is_gone(int((tmp_path / "pid").read_text()))


def _is_gone(pid: int) -> bool:
    for _ in range(50):
        state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
        if state.strip() in ("", "Z"):
            return True
        time.sleep(0.1)
    return False


def test_cases_with_servers_get_ports_of_their_own(tmp_path: Path) -> None:
    case = write_case(tmp_path, "echo 127.0.0.1:18777 18777 118777")
    place = tmp_path / "place"
    place.mkdir()
    address, port, other = run_case(case, place, libraries=(), limit_s=20).output.split()
    assert address == f"127.0.0.1:{port}"
    assert port != "18777"
    assert other == "118777"


# A few whole runs of the command; `make test-cases` makes them all.
@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in OWN if case.name in QUICK], ids=lambda case: case.name)
@pytest.mark.long
def test_our_own_cases(case: Path) -> None:
    row = try_case(case, (), 300)
    assert row.verdict.word == "passed", f"{row.verdict.line}\n{row.output}"
