"""Checkpoints side by side: which of them can be compared, and what is shown of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.jobs.service import JobDetails
from app.jobs.states import JobStatus
from app.web import formats
from app.web.formats import ratio
from app.web.plots import Datum
from app.web.views import JobPage
from pruning_core.report.quality import QualityReport
from pruning_core.report.report import Outcome
from pruning_core.spec.prune import PruneSpec


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint of the frontier view: a job's own, or one of its several budgets."""

    number: int
    job: JobPage
    path: str
    outcome: Outcome

    @property
    def macs_kept(self) -> float | None:
        """Share of the MACs."""
        return ratio(self.outcome.macs.pruned, self.outcome.macs.dense)

    @property
    def size_kept(self) -> float | None:
        """Share of the bytes."""
        return ratio(self.outcome.bytes.pruned, self.outcome.bytes.dense)

    @property
    def speedup(self) -> float | None:
        """The speed-up."""
        return formats.finite(self.outcome.latency_ms.speedup)

    @property
    def quality(self) -> float | None:
        """The task's metric."""
        return formats.finite(self.outcome.quality.pruned)

    @property
    def quality_kept(self) -> float | None:
        """Share of the dense model's quality."""
        return formats.finite(self.outcome.quality.kept)

    @property
    def megabytes(self) -> float:
        """The size of the weights in MB, which compares models, too."""
        return self.outcome.bytes.pruned / 1e6

    @property
    def model(self) -> str:
        """The model's name."""
        return self.job.model

    @property
    def layout(self) -> str:
        """What the checkpoint loads in, in a word or two."""
        return "stock" if self.outcome.layout == "stock" else self.outcome.layout.replace("_", " ")

    @property
    def budget(self) -> str:
        """The budget that was asked for."""
        return self.outcome.target.asked

    def along(self, axis: str) -> float | None:
        """Return the figure on one of the axes of `AXES`."""
        return {"macs": self.macs_kept, "size": self.size_kept, "speedup": self.speedup, "bytes": self.megabytes}[axis]


AXES = {"macs": "MACs kept", "size": "Size kept", "bytes": "Size in MB", "speedup": "Speed-up"}
SHARES = frozenset({"macs", "size"})


@dataclass(frozen=True, slots=True)
class DenseModel:
    """A dense model that some checkpoints come from: its quality by the very evaluation that they were judged by."""

    model: str
    quality: float | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Checkpoints whose quality can be compared: by one metric of one task, on the same rows; of one model, or of several."""

    task: str
    metric: str
    dense: tuple[DenseModel, ...]
    checkpoints: tuple[Checkpoint, ...]
    lower_is_better: bool = False
    samples: int = 0

    @property
    def reference(self) -> float | None:
        """The dense model's quality, where there is one such model."""
        return self.dense[0].quality if len(self.dense) == 1 else None

    def data(self, axis: str, series: Sequence[str], *, by_model: bool = False) -> list[Datum]:
        """Return the checkpoints as the chart draws them, coloured by their method or by their model."""
        return [
            Datum(
                found.along(axis),
                found.quality,
                found.number,
                series.index(found.model if by_model else found.job.view.spec.method.name),
                f"{found.number}: {found.job.name}, {found.job.view.spec.method.name}, {found.budget}, {found.layout}",
                found.job.view.status == JobStatus.SUCCEEDED,
            )
            for found in self.checkpoints
        ]


def comparisons(jobs: Sequence[JobDetails], *, across: bool = False) -> list[Comparison]:
    """Sort the checkpoints of jobs by what their quality means, the smallest first.

    Args:
        jobs: The jobs.
        across: Whether those of different models stand together, where they were judged on the same rows.
    """
    groups: dict[tuple[object, ...], list[tuple[JobPage, str, Outcome]]] = {}
    for details in jobs:
        page = JobPage.of(details)
        for path, outcome in _outcomes(page):
            quality, spec = outcome.quality, page.view.spec
            of_model = () if across else (spec.model, _dense(outcome))
            groups.setdefault((page.task, *_judged_by(spec, quality), *of_model), []).append((page, path, outcome))
    return [_compared(members, across=across) for members in groups.values()]


def _compared(members: Sequence[tuple[JobPage, str, Outcome]], *, across: bool) -> Comparison:
    def size(member: tuple[JobPage, str, Outcome]) -> float:
        outcome = member[2]
        return outcome.bytes.pruned if across else ratio(outcome.macs.pruned, outcome.macs.dense) or 0

    ordered = sorted(members, key=size)
    first, task = ordered[0][2].quality, ordered[0][0].task
    dense = {
        (page.view.spec.model, _dense(outcome)): DenseModel(
            page.model, formats.finite(outcome.quality.dense), outcome.bytes.dense
        )
        for page, _path, outcome in ordered
    }
    return Comparison(
        task,
        first.label,
        tuple(dense.values()),
        tuple(Checkpoint(number, *member) for number, member in enumerate(ordered, start=1)),
        first.lower_is_better,
        first.samples,
    )


def _dense(outcome: Outcome) -> float:
    """Return the dense model's figure: of others' words of the same rows it is another, and so is the checkpoint's."""
    return round(outcome.quality.dense, 4)


def _judged_by(spec: PruneSpec, quality: QualityReport) -> tuple[object, ...]:
    """Return what the headline's quality is of: the rows, how they are read, and the dense model's figure on them.

    Further sets, slices and examples are told beside the headline, and change nothing about it. A search for a floor judges on
    one half of the rows, which the seed draws.
    """
    task, how = spec.task, spec.evaluation
    rows = (task.dataset, task.config, task.revision, task.validation_split, task.validation_share, how.max_samples)
    drawn = None if spec.all_targets else spec.seed
    read = (task.columns, task.prefix, how.max_length)
    return (*rows, drawn, *read, quality.metric, quality.samples)


def _outcomes(page: JobPage) -> Iterator[tuple[str, Outcome]]:
    if page.report is None:
        return
    if page.report.frontier:
        yield from ((point.path, point) for point in page.report.frontier)
    else:
        yield ".", page.report
