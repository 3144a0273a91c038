"""Closed sets (states, events, metrics, refusals) and what is said or done for each member: nothing is left to a default."""

from __future__ import annotations

import inspect
from uuid import uuid4

import pytest

from app import refusals
from app.db import Database
from app.errors import STATUSES
from app.inspection.records import UploadKind
from app.jobs.records import TERMINAL_EVENTS, EventType, Job, JobEvent
from app.jobs.states import ACTIVE, TERMINAL, JobStatus
from app.jobs.statistics import LoggedEvent
from app.jobs.tally import Tally
from app.refusals import RequestError
from app.uploads.records import is_upload_id
from app.web.formats import verdict
from app.web.specs import METRICS, SECTIONS
from app.web.views import STATUS_WORDS, event_lines, steps
from app.webhooks.schemas import ALL_EVENTS
from pruning_core.report.progress import Progress
from pruning_core.report.report import Report, TargetReport
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import TARGET_METRICS
from tests.unit.app.sample import REPORT

SPEC = PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5})
METRICS_OF_TARGETS = tuple(TARGET_METRICS)


def test_a_status_is_waiting_active_or_an_end():
    parts = ({JobStatus.QUEUED}, ACTIVE, TERMINAL)
    assert set().union(*parts) == set(JobStatus)
    assert sum(map(len, parts)) == len(JobStatus)


def test_each_end_has_its_event_and_webhooks_know_them_all():
    assert {f"job.{status}" for status in TERMINAL} == set(map(str, TERMINAL_EVENTS)) == set(ALL_EVENTS)


def test_pages_have_words_for_every_status_and_every_event():
    assert set(STATUS_WORDS) == set(JobStatus)
    lines = event_lines([JobEvent(1, kind, {}, 0.0) for kind in EventType])
    assert len({line.words for line in lines}) == len(EventType)


@pytest.mark.parametrize("status", JobStatus)
def test_pages_know_how_the_stage_stands_that_a_job_has_reached(status: JobStatus) -> None:
    states = [step.state for step in steps(_job(status))]
    assert states[0] == "done"
    wanted = {
        JobStatus.QUEUED: "ahead",
        JobStatus.RUNNING: "current",
        JobStatus.CANCELLING: "current",
        JobStatus.SUCCEEDED: "done",
        JobStatus.FAILED: "stopped",
        JobStatus.CANCELLED: "ended",
    }
    assert states[2] == wanted[status]


@pytest.mark.parametrize("kind", EventType)
def test_the_tally_counts_an_event_as_what_it_is(kind: EventType) -> None:
    tally = Tally()
    tally.add([LoggedEvent(1, "job", EventType.STARTED, "", 1.0), LoggedEvent(2, "job", kind, "why", 3.0)], {})
    ends = kind in TERMINAL_EVENTS
    assert dict(tally.finished) == ({kind.removeprefix("job."): 1} if ends else {})
    assert sum(tally.run_s.counts) == (1 if ends else 0)
    assert dict(tally.requeues) == ({"why": 1} if kind == EventType.REQUEUED else {})
    assert dict(tally.failures) == ({"why": 1} if kind == EventType.FAILED else {})
    assert tally.attempts == (2 if kind == EventType.STARTED else 1)


def test_every_metric_of_a_target_can_be_chosen_and_is_told():
    assert set(METRICS) == {*METRICS_OF_TARGETS, "floor"}
    told = [verdict(TargetReport(metric=metric, requested=0.5, achieved=0.5, tolerance=0.1)) for metric in METRICS_OF_TARGETS]
    assert len(set(told)) == len(METRICS_OF_TARGETS)


def test_every_object_of_the_spec_that_is_no_choice_has_its_section_of_the_form():
    plain = {
        name
        for name, field in PruneSpec.model_fields.items()
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Frozen)
    }
    assert {name for name, _title, _definition in SECTIONS} == plain - {"task"}
    assert [PruneSpec.model_fields[name].annotation.__name__ for name, _, _ in SECTIONS] == [name for _, _, name in SECTIONS]


def test_every_refusal_has_its_status():
    classes = {kind for _name, kind in inspect.getmembers(refusals, inspect.isclass) if issubclass(kind, RequestError)}
    assert set(STATUSES) == classes - {RequestError}
    assert not [kind for known in STATUSES for kind in known.__subclasses__()]


def test_every_kind_of_upload_has_ids_of_its_own():
    assert len({kind.prefix for kind in UploadKind}) == len(UploadKind)
    assert all(is_upload_id(kind.prefix + 64 * "0") for kind in UploadKind)
    assert not is_upload_id("key_" + 64 * "0")


def _job(status: JobStatus) -> Job:
    return Job(
        id=f"job_{uuid4().hex}",
        owner="",
        status=status,
        priority=0,
        spec=SPEC,
        metadata={},
        version=1,
        fence=1,
        attempt=1,
        cancel_requested=False,
        progress=Progress(stage="score", step=1, total=4),
        progress_at=None,
        report=Report.model_validate(REPORT) if status == JobStatus.SUCCEEDED else None,
        error=None,
        created_at=0.0,
        started_at=None,
        finished_at=None,
        expires_at=None,
    )


def test_another_database_is_refused_and_not_taken_for_one_of_the_two():
    with pytest.raises(ValueError, match="SQLite or PostgreSQL, not in mysql"):
        Database("mysql://host/name")
