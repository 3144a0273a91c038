"""The report page: one HTML file that needs no network, is readable on a phone, and can be printed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from pruning_core.artifacts.charts import (
    Bar,
    Point,
    comparison,
    frontier,
    iterations,
    ledger,
    norms,
    residuals,
    some_no_better,
    stages,
    structure,
    training_losses,
    training_measures,
)
from pruning_core.artifacts.loading import display_name, snippets, summary
from pruning_core.artifacts.serving import commands
from pruning_core.report.also_words import set_words
from pruning_core.report.engine_words import conditions, engine_words
from pruning_core.report.latency_words import interval_of_speedup
from pruning_core.report.ledger_words import ledger_sentence, ledger_words
from pruning_core.report.quality_words import difference_words, floor_words, interval_words, precision_words
from pruning_core.report.report import LatencyReport, QualityReport, Report
from pruning_core.report.sublayers import heads_of, is_failed, matrix_words, reported_sublayers
from pruning_core.report.where import SliceReport
from pruning_core.spec.prune import PruneSpec


@dataclass(frozen=True, slots=True)
class Headline:
    """One of the main figures at the top of the page."""

    figure: str
    label: str
    detail: str


def _template(name: str) -> str:
    return files("pruning_core.artifacts").joinpath("templates", name).read_text(encoding="utf-8")


def render_page(spec: PruneSpec, report: Report) -> str:
    """Render the page of a report as HTML.

    Args:
        spec: The request.
        report: The report; all figures on the page are from it.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = {
        "comparison": comparison(_bars(report)),
        "structure": structure(report.layers),
        "residuals": residuals(report.layers),
        "iterations": iterations(report.layers),
        "stages": stages(report.seconds),
        "frontier": _frontier(report),
        "ledger": None if report.ledger is None else ledger(report.ledger.rows),
        "norms": None if report.pattern is None or report.pattern.segments is None else norms(report.pattern.segments.norms),
        "losses": None if report.training is None else training_losses(report.training.points),
        "healing": None if report.healing is None else training_losses(report.healing.points),
        "held_out": None if report.healing is None else training_measures(report.healing.points),
        "measures": None if report.training is None else training_measures(report.training.points),
    }
    return environment.get_template("report.html").render(
        report=report,
        name=display_name(report.model),
        preset=spec.preset,
        target=_target(spec, report),
        kept=report.target.met and (report.quality_floor is None or report.quality_floor.held),
        floor=_floor(report),
        difference=difference_words(report.quality),
        sets=set_words(report.also),
        slices=_slices(report),
        interval_words=interval_words,
        interval_of_speedup=interval_of_speedup,
        precision_words=precision_words,
        headlines=_headlines(report),
        shape=latency_shape(report.latency_ms),
        charts={name: None if chart is None else Markup(chart) for name, chart in charts.items()},  # noqa: S704 - escaped where it is drawn
        points=[(point, point.macs.pruned / point.macs.dense) for point in report.frontier],
        heads=heads_of(report.layers),
        sublayers=list(reported_sublayers(report.layers)),
        some_no_better=some_no_better(report.layers),
        is_failed=is_failed,
        sentence=_sentence,
        matrix_words=matrix_words,
        neurons=(sum(layer.kept_neurons for layer in report.layers), sum(layer.dense_neurons for layer in report.layers)),
        engines=engine_words(report.engines),
        ledger=ledger_words(report.ledger),
        ledger_sentence=ledger_sentence(report.ledger),
        conditions=conditions(report),
        snippets=snippets(spec, report),
        commands=commands(spec, report),
        loading=summary(report).replace("`", ""),
        size=_size,
    )


def latency_shape(latency: LatencyReport) -> str:
    """Return the shape at which a latency was measured, without which its figures mean nothing."""
    threads = "" if latency.device != "cpu" else ", 1 thread" if latency.threads == 1 else f", {latency.threads} threads"
    blocks = ", sum of its blocks" if latency.measured == "blocks" else ""
    return f"{latency.batch} × {latency.length} tokens{threads}, {latency.device}, {latency.dtype}{blocks}"


def _target(spec: PruneSpec, report: Report) -> str:
    target = report.target
    got = f"{100 * target.achieved:.2f}%"
    if not spec.all_targets:
        return f"Asked for the smallest model that keeps its quality; {got} of the MACs stayed."
    missed = "" if target.met else " The target is missed."
    if target.metric == "pattern" and report.pattern is not None:
        blocks = f"{report.pattern.blocks - report.pattern.violations:,} of {report.pattern.blocks:,} blocks satisfy it"
        return f"Asked for {report.pattern.pattern} in every matrix; {blocks}, {got} of their weights are zero.{missed}"
    return f"{target.verdict}.{missed}"


def _sentence(text: str) -> str:
    """Begin a text with a capital letter."""
    return text[:1].upper() + text[1:]


def _slices(report: Report) -> dict[str | None, list[SliceReport]]:
    """Return the slices by column, those by length under None: of each column the first, which lost the most."""
    found: dict[str | None, list[SliceReport]] = {}
    for own in () if report.where is None else report.where.slices:
        found.setdefault(own.column, []).append(own)
    return found


def _floor(report: Report) -> str:
    floor, metric = report.quality_floor, report.quality.metric
    if floor is None:
        return ""
    bound = "at most " if floor.lower_is_better else ""
    said = floor_words(floor)
    how = f" ({said})" if said else ""
    return f"It {'holds' if floor.held else 'does not hold'} the floor, {metric} {bound}{floor.required:.4f}{how}."


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _headlines(report: Report) -> tuple[Headline, ...]:
    latency, quality = report.latency_ms, report.quality
    return (
        Headline(f"{latency.speedup:.2f}×", "as fast", f"{latency.dense:.1f} → {latency.pruned:.1f} ms"),
        _reduction(report),
        Headline(
            f"{quality.kept:.1%}" if quality.kept is not None else f"{quality.pruned:.3f}",
            _kept_words(quality) if quality.kept is not None else quality.metric,
            f"{quality.dense:.4f} → {quality.pruned:.4f}",
        ),
    )


def _kept_words(quality: QualityReport) -> str:
    return f"of the quality kept, by {quality.metric}" if quality.lower_is_better else f"of the {quality.metric} kept"


def _reduction(report: Report) -> Headline:
    pattern = report.pattern
    if pattern is None:
        left = report.bytes.pruned / report.bytes.dense
        return Headline(f"{left:.0%}", "of the size", f"{report.bytes.dense / 1e6:.1f} → {report.bytes.pruned / 1e6:.1f} MB")
    kept = pattern.prunable_weights - pattern.zeros
    return Headline(
        f"{pattern.zeros / pattern.prunable_weights:.0%}",
        "of the blocks’ weights zero",
        f"{pattern.prunable_weights / 1e6:.1f} → {kept / 1e6:.1f} M, {pattern.pattern}",
    )


def _bars(report: Report) -> list[Bar]:
    latency = report.latency_ms
    counts = (("Parameters", report.parameters, 1e6, "M"), ("MACs of the blocks", report.macs, 1e6, "M"))
    bars = [
        Bar(label, pair.pruned / pair.dense, f"{pair.dense / scale:.1f} → {pair.pruned / scale:.1f} {unit}")
        for label, pair, scale, unit in (*counts, ("Weights on disk", report.bytes, 1e6, "MB"))
    ]
    if report.pattern is not None:
        share = report.pattern.nonzero_macs / report.macs.dense
        bars.append(
            Bar("MACs without zeros", share, f"{report.macs.dense / 1e6:.1f} → {report.pattern.nonzero_macs / 1e6:.1f} M")
        )
    return [*bars, Bar("Latency", latency.pruned / latency.dense, f"{latency.dense:.1f} → {latency.pruned:.1f} ms")]


def _frontier(report: Report) -> str | None:
    if len(report.frontier) < 2:
        return None
    points = [
        Point(point.target.asked, point.macs.pruned / point.macs.dense, point.quality.pruned) for point in report.frontier
    ]
    return frontier(points, report.quality)
