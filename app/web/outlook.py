"""Other budgets of a job, for people: what they would bring, drawn and in numbers, and the order of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.api.deps import Service, Writer
from app.api.jobs import JobId, derived
from app.jobs.derivation import JobDerive
from app.jobs.outlook import BuiltView, OutlookView, PredictedView
from app.refusals import Refused
from app.web import formats
from app.web.forms import read_form
from app.web.plots import Datum, Scatter, curve
from app.web.rendering import PageRoute
from pruning_core.spec.targets import KeepTarget

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ONCE, _PERCENT = re.compile(r"[0-9a-f]{32}", re.ASCII), re.compile(r"[1-9][0-9]?", re.ASCII)
_FIRST = 50  # per cent


@dataclass(frozen=True, slots=True)
class BudgetWords:
    """One budget in words. ``x`` and ``y`` are its place in the chart; empty where nothing is known."""

    percent: int
    size: str
    bytes: str
    speedup: str
    divergence: str
    x: float | None
    y: float | None

    def data(self) -> dict[str, object]:
        """Return what the script puts in place."""
        shown = {"size": self.size, "bytes": self.bytes, "speedup": self.speedup, "divergence": self.divergence}
        return {"keep": self.percent, "x": self.x, "y": self.y, **shown}


@dataclass(frozen=True, slots=True)
class BuiltWords:
    """A checkpoint that was built: figures as measured, and as the others would have predicted them."""

    number: int
    job: str
    percent: str
    speedup: str
    predicted_speedup: str
    divergence: str
    predicted_divergence: str


@dataclass(frozen=True, slots=True)
class OutlookPage:
    """The explorer.

    Attributes:
        measure: What the divergence is; None where the task has none.
        budgets: All that can be ordered, from large to small.
        chosen: The one that is shown.
        built: The checkpoints that it stands on.
        chart: Divergence against budget; None where nothing is known of it.
        once: Under which an order counts once.
    """

    measure: str | None
    budgets: tuple[BudgetWords, ...]
    chosen: BudgetWords
    built: tuple[BuiltWords, ...]
    chart: Scatter | None
    once: str

    @property
    def data(self) -> list[dict[str, object]]:
        """Return all budgets for the script."""
        return [own.data() for own in self.budgets]

    @classmethod
    def of(cls, view: OutlookView, keep: int | None) -> OutlookPage | None:
        """Show an outlook; None where no budget is left to be ordered.

        Args:
            view: What the API answers.
            keep: The budget to show, in per cent; None, or one that cannot be met: the nearest to one half.
        """
        if not view.predictions:
            return None
        line = [(own.macs_keep, own.divergence) for own in view.predictions if own.divergence is not None]
        marks = [
            Datum(own.macs_keep, own.divergence, number, 0, f"{number}: {own.macs_keep:.0%} of the MACs")
            for number, own in enumerate(view.built, start=1)
        ]
        drawn = curve([(1.0, 0.0), *line], marks) if line else None
        places = {} if drawn is None else dict(zip((own for own, _ in line), drawn.line[1:], strict=True))
        budgets = tuple(_words(own, view.dense_bytes, places.get(own.macs_keep)) for own in view.predictions)
        wanted = _FIRST if keep is None else keep
        return cls(
            measure=view.measure,
            budgets=budgets,
            chosen=min(budgets, key=lambda own: abs(own.percent - wanted)),
            built=tuple(_built(number, own) for number, own in enumerate(view.built, start=1)),
            chart=drawn,
            once=uuid4().hex,
        )


@router.post("/jobs/{job_id}/derive")
async def order(job_id: JobId, request: Request, service: Service, writer: Writer) -> Response:
    """Submit the job again with another budget, and show it.

    Raises:
        Refused: The budget is no whole per cent.
    """
    form = await read_form(request)
    if not _PERCENT.fullmatch(form.one("keep")):
        raise Refused("invalid_request", "keep must be a whole number of per cent, from 1 to 99", "keep")
    keep, once = int(form.one("keep")), form.one("once")
    change = JobDerive(target=KeepTarget(metric="macs", keep=keep / 100))
    job, sent = await derived(job_id, change, service, writer.owner)
    key = f"page-{once if _ONCE.fullmatch(once) else uuid4().hex}-{keep}"
    accepted = await service.submit(job, sent, caller=writer, idempotency_key=key)
    return RedirectResponse(f"/jobs/{accepted.job.public_id}", HTTPStatus.SEE_OTHER)


def _words(own: PredictedView, dense_bytes: int, place: tuple[float, float] | None) -> BudgetWords:
    x, y = (None, None) if place is None else place
    return BudgetWords(
        percent=round(100 * own.macs_keep),
        size=formats.percent(formats.ratio(own.bytes, dense_bytes), 0),
        bytes=formats.size(own.bytes),
        speedup=formats.times(own.speedup),
        divergence=_small(own.divergence),
        x=x,
        y=y,
    )


def _built(number: int, own: BuiltView) -> BuiltWords:
    return BuiltWords(
        number=number,
        job=own.job,
        percent=formats.percent(own.macs_keep, 0),
        speedup=formats.times(own.speedup),
        predicted_speedup=formats.times(own.predicted_speedup),
        divergence=_small(own.divergence),
        predicted_divergence=_small(own.predicted_divergence),
    )


def _small(value: float | None) -> str:
    return formats.MISSING if value is None else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"
