"""A part of ``make test-mutations``, and whether the command line and the service say what the checks say."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import Api, make_api, zygote  # noqa: F401 - fixtures
from tests.mutations.bases import BASES
from tests.mutations.campaign import Tally, campaign, draw, merged, table
from tests.mutations.rows import mutate_rows, write_as
from tests.mutations.strategies import Example, Mutation
from tests.mutations.trying import ROOT, Outcome, Trier, place_of, unsaid

pytestmark = pytest.mark.mutations

_EXAMPLES, _SEED = 60, 19
_ASKED, _CALLED = 40, 4


@pytest.fixture(scope="module")
def trier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trier]:
    before = logging.root.manager.disable, dict(os.environ)
    own = Trier(tmp_path_factory.mktemp("mutations"))
    assert logging.root.manager.disable == before[0], "tests of this process read the log"
    yield own
    own.close()
    names = ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
    assert [os.environ.get(name) for name in names] == [before[1].get(name) for name in names]
    assert logging.root.manager.disable == before[0]


@pytest.mark.slow
@pytest.mark.parametrize("base", [name for name in BASES if name not in ("bert-classes", "t5", "vit")])  # `Trier` does these
def test_good_requests_are_done(trier: Trier, base: str) -> None:
    outcome = trier.attempt(Example(base, ()))
    assert (outcome.word, outcome.code) == ("done", "succeeded"), outcome


@pytest.mark.slow
@pytest.mark.long
def test_mutations_are_refused_in_a_sentence_or_done(trier: Trier) -> None:
    tally = campaign(trier, _EXAMPLES, _SEED)
    assert not tally.failures, table(tally.as_json())
    words = {word for kind, word, _code in tally.counts if kind == "all"}
    assert {"refused", "done"} <= words


def test_the_same_seed_draws_the_same_examples() -> None:
    drawn: list[list[Example]] = [[], []]
    for own in drawn:
        draw(10, 3, own.append)
    assert drawn[0] == drawn[1]
    assert Example.from_json(drawn[0][0].as_json()) == drawn[0][0]


def test_counts_of_parts_add_up_however_often_they_are_merged() -> None:
    parts = [Tally(1), Tally(2)]
    for own in parts:
        own.add(Example("gpt2", ()), Outcome("done", "succeeded"))
    found = merged([merged([own.as_json()]) for own in parts])
    assert found["seeds"] == [1, 2]
    assert found["counts"] == [["all", "done", "succeeded", 2]]


def test_columns_may_all_be_dropped(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "word1", "label": 0}\n')
    for _ in range(4):
        mutate_rows(tmp_path, "drop-column", 0, None)
    write_as(tmp_path, ".csv")
    assert (tmp_path / "train.jsonl").read_text() == "{}\n"


def test_a_mutation_that_fails_is_told_and_ends_nothing(trier: Trier) -> None:
    outcome = trier.attempt(Example("gpt2", (Mutation("rows", "no-such-operation", 0),)))
    assert (outcome.word, outcome.failed) == ("not made", True)


@pytest.mark.long
def test_failures_are_shrunk_and_counted(trier: Trier, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Mutation("rows", "few", 0)

    def attempt(example: Example) -> Outcome:
        failed = any(one.kind == "rows" for one in example.mutations)
        return Outcome("job crashed", "KeyError", "here") if failed else Outcome("done", "succeeded")

    monkeypatch.setattr(trier, "attempt", attempt)
    tally = campaign(trier, 200, 1)
    (example, outcome) = tally.failures["job crashed", "KeyError", "here"]
    assert [one.kind for one in example.mutations] == ["rows"]
    assert outcome.failed
    assert tally.times[outcome.key] > 1
    again = Tally(1)
    again.add(Example("gpt2", (bad, bad)), outcome)
    assert again.as_json()["counts"] == [["all", "job crashed", "", 1], ["rows", "job crashed", "", 1]]


@pytest.mark.parametrize(
    ("message", "param", "says"),
    [
        ("the model folder has no tokenizer", "model", None),
        ("boom", "model", "no sentence"),
        ("something is wrong here", None, "no field"),
        ("it ended in KeyError: 3", "model", "a class of an error"),
        ("the folder /srv/x/y is not readable", "model", "a path of the server"),
        ("one line\nand another one", "model", "more than a sentence"),
    ],
)
def test_what_is_a_sentence(message: str, param: str | None, says: str | None) -> None:
    assert unsaid(message, param, Path("/srv/x")) == says


def test_a_failure_has_a_place() -> None:
    from pruning_core.checks.request import check_checkpoint
    from pruning_core.errors import PruningError

    with pytest.raises(PruningError) as caught:
        check_checkpoint(Path("/nowhere"))
    assert place_of(caught.value).startswith("pruning_core/files/")


@pytest.mark.slow
def test_the_service_says_what_the_checks_say(trier: Trier, make_api: Callable[..., Api]) -> None:  # noqa: F811
    """The same requests over HTTP, read in a forked inspection: the same verdict, and never an error of the server."""
    api, drawn = make_api("", allowed_roots=(trier.scratch,)), []
    draw(_ASKED, _SEED + 1, drawn.append)
    for example in drawn:
        with tempfile.TemporaryDirectory(dir=trier.scratch) as folder:
            place = trier.make(example, Path(folder) / "request")
            asked, refusal = _plain(place.request()), _refusal(place)
            if not isinstance(asked, dict):
                continue
            response = api.client.post("/v1/jobs", json={**asked, "validate_only": True})
            assert response.status_code in ((200,) if refusal is None else (400, 422)), (
                example.as_json(),
                response.text,
                refusal,
            )
            assert response.status_code == 200 or str(place.folder) not in response.text, example.as_json()


def _plain(said: object) -> object:
    """Give it as JSON over HTTP has it: without NaN."""
    return json.loads(json.dumps(said), parse_constant=lambda _name: None)


def _refusal(place) -> str | None:
    from pydantic import ValidationError

    from pruning_core.checks.request import check_local_inputs
    from pruning_core.errors import PruningError
    from pruning_core.spec.prune import PruneSpec

    try:
        check_local_inputs(PruneSpec.model_validate(_plain(place.request())))
    except (PruningError, ValidationError) as error:
        return str(error)
    return None


@pytest.mark.slow
@pytest.mark.long
def test_the_command_line_says_what_the_checks_say(trier: Trier) -> None:
    drawn: list[Example] = []
    draw(_CALLED, _SEED + 2, drawn.append)
    for example in drawn:
        with tempfile.TemporaryDirectory(dir=trier.scratch) as folder:
            place = trier.make(example, Path(folder) / "request")
            refusal = _refusal(place)
            spec = Path(folder) / "asked.json"
            spec.write_text(json.dumps(_plain(place.request())), encoding="utf-8")
            command = [sys.executable, "-m", "coppice.cli", "check", "--spec", str(spec)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=folder
            )
            assert done.returncode == (0 if refusal is None else 2), (example.as_json(), done.stderr, refusal)
            assert "Traceback" not in done.stderr
