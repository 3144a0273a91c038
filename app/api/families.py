"""Metric families of the whole service, by the names under which Prometheus knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from app.jobs.statistics import QueueState
from app.jobs.tally import Distribution, Tally
from app.webhooks.records import Backlog


def build_info(version: str) -> Metric:
    """Return the version of the service."""
    return _gauges("coppice_build_info", "Version of the service.", "version", {version: 1})


def parts_up(parts: Mapping[str, bool]) -> Metric:
    """Return which parts can be used."""
    return _gauges("coppice_part_up", "Whether database, store and broker can be used.", "part", parts)


def broker_messages(count: int) -> Metric:
    """Return the count of wake-ups in the broker."""
    return GaugeMetricFamily("coppice_broker_messages", "Wake-ups that no worker has taken yet; not the queue.", value=count)


def store_free_bytes(count: int) -> Metric:
    """Return the free space of a folder store."""
    return GaugeMetricFamily("coppice_store_free_bytes", "Room on the disk of the artifact folder.", value=count)


def of_queue(state: QueueState) -> Iterator[Metric]:
    """Yield the present state of the queue."""
    yield _gauges("coppice_jobs", "Jobs by status.", "status", {str(status): count for status, count in state.jobs.items()})
    yield GaugeMetricFamily(
        "coppice_queue_oldest_seconds",
        "For how long the queued job that was due first has been due; one that was given back counts from its submission.",
        value=state.oldest_due_s,
    )
    yield GaugeMetricFamily(
        "coppice_leases_expired",
        "Running jobs whose worker has gone silent; a reaper takes them back.",
        value=state.expired_leases,
    )
    by_queue = GaugeMetricFamily(
        "coppice_queue_jobs", "Jobs that wait and that run, by queue: what their workers must have.", labels=("queue", "state")
    )
    for (queue, doing), count in state.queues.items():
        by_queue.add_metric((queue, doing), count)
    yield by_queue
    yield GaugeMetricFamily("coppice_workers", "Workers that signed in within the last lease.", value=state.workers)


def of_outbox(backlog: Backlog) -> Iterator[Metric]:
    """Yield the state of the webhooks' outbox."""
    yield GaugeMetricFamily("coppice_webhook_outbox_messages", "Messages still to be delivered.", value=backlog.messages)
    yield GaugeMetricFamily(
        "coppice_webhook_outbox_oldest_seconds", "Age of the oldest message still to be delivered.", value=backlog.oldest_s
    )
    yield GaugeMetricFamily("coppice_webhooks_disabled", "Webhooks that were given up.", value=backlog.disabled)


def of_log(tally: Tally) -> Iterator[Metric]:
    """Yield the counts since the first job."""
    yield CounterMetricFamily("coppice_job_attempts", "Attempts begun.", value=tally.attempts)
    yield _counters("coppice_jobs_finished", "Jobs that ended, by how.", "status", tally.finished)
    yield _counters("coppice_job_failures", "Failed jobs, by error code.", "code", tally.failures)
    yield _counters("coppice_job_requeues", "Attempts that gave their job back, by reason.", "reason", tally.requeues)
    yield _histogram("coppice_job_wait_seconds", "From queued to claimed.", {"": tally.wait_s})
    yield _histogram("coppice_job_run_seconds", "From claimed to ended, last attempt.", {"": tally.run_s})
    yield _histogram(
        "coppice_job_stage_seconds", "Stages of succeeded jobs, as their reports have them.", tally.stage_s, "stage"
    )


def _gauges(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=(label,))
    for key, value in values.items():
        family.add_metric((str(key),), value)
    return family


def _counters(name: str, help_text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=(label,))
    for key, value in sorted(values.items()):
        family.add_metric((key,), value)
    return family


def _histogram(name: str, help_text: str, values: Mapping[str, Distribution], label: str = "") -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=(label,) if label else ())
    for key, distribution in sorted(values.items()):
        bounds = [*(str(float(bound)) for bound in distribution.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(distribution.counts), strict=True))
        family.add_metric((key,) if label else (), buckets, distribution.sum_s)
    return family
