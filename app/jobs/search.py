"""SQL of lists and searches: which jobs of a tenant, newest first, along indexes however many there are.

What is searched by stands beside the spec: name, model and method in columns, metadata and tags in a table of labels. Where a
job's ``model`` is null they do not tell, because a version before this one wrote the job or the name is too long for an index;
the spec is looked into then, of such jobs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from app.jobs import models
from app.jobs.naming import labels_of
from app.jobs.records import CALIBRATION_PREFIX, Job
from app.jobs.states import JobStatus

_jobs, _labels = models.jobs, models.job_labels

_MANY = 200  # jobs: beyond, it is no use to know how many
_MANY_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search is for: all of it must hold.

    Attributes:
        owner: Whose jobs.
        statuses: Any of these; empty: any.
        metadata: All of these.
        model: The model's name.
        model_like: A part of the model's name, in letters of either case.
        method: The method's name.
        name_like: A part of the job's name, in letters of either case.
        tags: All of these.
    """

    owner: str
    statuses: Sequence[JobStatus] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    model: str | None = None
    model_like: str | None = None
    method: str | None = None
    name_like: str | None = None
    tags: Sequence[str] = ()

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """The labels that a job must have: of its metadata, and its tags."""
        return (*self.metadata.items(), *labels_of(self.tags))

    @property
    def looks_at_specs(self) -> bool:
        """Whether something is asked for that stands in the spec, too."""
        return any(own is not None for own in (self.model, self.model_like, self.method)) or bool(self.metadata)


def no_calibration(job_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a job is no calibration, which have a list of their own."""
    return ~job_id.startswith(CALIBRATION_PREFIX, autoescape=True)


def found_ids(connection: sa.Connection, wanted: Wanted, *, after: Job | None, limit: int) -> list[str]:
    """Return the ids of jobs, newest first, from behind a given one."""
    queries = [_by_index(connection, wanted)]
    if wanted.looks_at_specs:
        queries.append(_by_spec(wanted))
    found: set[tuple[float, str]] = set()
    for query, created_at, job_id in queries:
        before = sa.true() if after is None else sa.tuple_(created_at, job_id) < sa.tuple_(after.created_at, after.id)
        rows = connection.execute(
            query.where(before, no_calibration(job_id)).order_by(created_at.desc(), job_id.desc()).limit(limit)
        )
        found.update((moment, own) for moment, own in rows)
    return [job_id for _moment, job_id in sorted(found, reverse=True)[:limit]]


_Query = tuple[sa.Select[Any, Any], sa.ColumnElement[float], sa.ColumnElement[str]]


def _by_index(connection: sa.Connection, wanted: Wanted) -> _Query:
    of_jobs: list[sa.ColumnElement[bool]] = []
    if wanted.statuses:
        of_jobs.append(_jobs.c.status.in_([str(status) for status in wanted.statuses]))
    if wanted.model is not None:
        of_jobs.append(_jobs.c.model == wanted.model)
    if wanted.model_like is not None:
        of_jobs.append(_like(connection, wanted.owner, _jobs.c.model, wanted.model_like))
    if wanted.method is not None:
        of_jobs.append(_jobs.c.method == wanted.method)
    if wanted.name_like is not None:
        of_jobs.append(_like(connection, wanted.owner, _jobs.c.name, wanted.name_like))
    if not wanted.labels:
        columns = (_jobs.c.created_at, _jobs.c.id)
        return sa.select(*columns).where(_jobs.c.owner == wanted.owner, *of_jobs), *columns
    first, *others = _rarest_first(connection, wanted)
    columns = (_labels.c.created_at, _labels.c.job_id)
    query = sa.select(*columns).where(_labels.c.owner == wanted.owner, _has(_labels, *first))
    if of_jobs:
        query = query.join(_jobs, _jobs.c.id == _labels.c.job_id).where(*of_jobs)
    for number, pair in enumerate(others):
        also = _labels.alias(f"also{number}")
        query = query.where(sa.exists().where(also.c.job_id == _labels.c.job_id, _has(also, *pair)))
    return query, *columns


def _like(connection: sa.Connection, owner: str, column: sa.Column[str], part: str) -> sa.ColumnElement[bool]:
    """Return the condition that a name of a job, its own or its model's, has a part.

    A part that few jobs have is looked for among the owner's different names, of which there are fewer than jobs. Where
    many jobs have it, some of them are soon found among the newest. Where there are very many names, the index is read.
    """
    like = column.icontains(part, autoescape=True)
    first = sa.select(sa.func.min(column).label("own")).where(_jobs.c.owner == owner)
    names = first.cte("names", recursive=True)
    following = sa.select(sa.func.min(column)).where(_jobs.c.owner == owner, column > names.c.own)
    names = names.union_all(sa.select(following.scalar_subquery()).where(names.c.own.is_not(None)))
    some = sa.select(names.c.own).where(names.c.own.is_not(None)).limit(_MANY_NAMES + 1).subquery()
    known = connection.execute(sa.select(some.c.own, some.c.own.icontains(part, autoescape=True))).all()
    matching = [own for own, matches in known if matches]
    if len(known) > _MANY_NAMES or len(matching) > _MANY:
        return like
    these = column.in_(matching)
    counted = sa.select(_jobs.c.id).where(_jobs.c.owner == owner, these).limit(_MANY).subquery()
    few = (connection.scalar(sa.select(sa.func.count()).select_from(counted)) or 0) < _MANY
    return these if few else like


def _by_spec(wanted: Wanted) -> _Query:
    where = [_jobs.c.owner == wanted.owner, _jobs.c.model.is_(None), *by_spec(wanted)]
    columns = (_jobs.c.created_at, _jobs.c.id)
    return sa.select(*columns).where(*where), *columns


def by_spec(wanted: Wanted) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on jobs without their owner, by what their rows hold in JSON."""
    model = _jobs.c.spec["model"].as_string()
    where = [_jobs.c.metadata[key].as_string() == value for key, value in wanted.metadata.items()]
    if wanted.statuses:
        where.append(_jobs.c.status.in_([str(status) for status in wanted.statuses]))
    if wanted.model is not None:
        where.append(model == wanted.model)
    if wanted.model_like is not None:
        where.append(model.icontains(wanted.model_like, autoescape=True))
    if wanted.method is not None:
        where.append(_jobs.c.spec[("method", "name")].as_string() == wanted.method)
    if wanted.name_like is not None:
        where.append(_jobs.c.name.icontains(wanted.name_like, autoescape=True))
    where += [sa.exists().where(_labels.c.job_id == _jobs.c.id, _has(_labels, *pair)) for pair in labels_of(wanted.tags)]
    return where


def _rarest_first(connection: sa.Connection, wanted: Wanted) -> list[tuple[str, str]]:
    """Order labels by how many jobs have them: those of the first are looked through."""
    pairs = list(wanted.labels)
    if len(pairs) == 1:
        return pairs

    def jobs_with(pair: tuple[str, str]) -> int:
        some = sa.select(_labels.c.job_id).where(_labels.c.owner == wanted.owner, _has(_labels, *pair)).limit(_MANY)
        return connection.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0

    return sorted(pairs, key=jobs_with)


def _has(labels: sa.FromClause, key: str, value: str) -> sa.ColumnElement[bool]:
    return sa.and_(labels.c.key == key, labels.c.value == value)
