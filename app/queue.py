"""The broker: it only wakes workers. What is to be done stands in the database; a lost message costs a reaper's tick."""

from __future__ import annotations

import math
import queue
import threading
import time
from typing import Any

import structlog
from celery import Celery
from kombu.entity import Exchange, Queue

from app import folder_broker
from app.logs import first_line
from app.settings import Settings

RUN_TASK = "coppice.run_job"
QUEUE_NAME = "coppice"

# Pause after a failure of the broker, and the most ids that wait meanwhile. The reaper publishes those that are dropped.
_PAUSE_S = 5
_MOST_WAITING = 1000
_DROPPED_EVERY_S = 60  # between two warnings of that
# Messages that go out at once, and then by the second.
_AT_ONCE = 50
_PER_S = 50

_log = structlog.get_logger(__name__)


def create_celery(settings: Settings, *, socket_timeout_s: float = 5) -> Celery:
    """Build the Celery application; connects to nothing.

    Args:
        settings: Which broker, and the longest job.
        socket_timeout_s: How long a broker may be silent. A front end passes less than a worker: its clients are waiting.
    """
    folder_broker.register()
    celery = Celery("coppice", set_as_current=False)
    # Longer than any job, so that a running job's message is not delivered again. Were it, the job could not be claimed twice.
    visibility_timeout_s = settings.job_timeout_s + 3600
    celery.conf.update(
        broker_url=settings.broker_url or f"{folder_broker.SCHEME}://localhost",  # kombu would complain about a missing host
        broker_transport_options=_transport_options(settings, visibility_timeout_s, socket_timeout_s),
        result_backend_transport_options={"visibility_timeout": visibility_timeout_s},
        visibility_timeout=visibility_timeout_s,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2,
        task_default_queue=QUEUE_NAME,
        task_acks_late=True,
        # The database counts the crashes of a job; the broker must not start it again by itself.
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_remote_control=settings.worker_events,
        worker_send_task_events=settings.worker_events,
        worker_hijack_root_logger=False,
    )
    return celery


def _transport_options(settings: Settings, visibility_timeout_s: float, socket_timeout_s: float) -> dict[str, Any]:
    if settings.broker_url:
        return {
            "visibility_timeout": visibility_timeout_s,
            "socket_timeout": socket_timeout_s,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 15,
        }
    folder = settings.data_dir.resolve() / "broker"
    messages, control = folder / "messages", folder / "control"
    for path in (messages, control):
        path.mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
        "polling_interval": 0.2,
    }


def pool_queue(pool: str) -> str:
    """Name the broker's queue for the jobs that only a pool of workers serves."""
    return f"{QUEUE_NAME}.{pool.replace('+', '_')}"  # kombu takes no + for a folder's queues; a collision only wakes in vain


def consume(celery: Celery, pool: str) -> None:
    """Have the workers of an application take the messages for everybody, and those for their pool."""
    celery.conf.update(task_queues=[Queue(name, Exchange(name), routing_key=name) for name in (QUEUE_NAME, pool_queue(pool))])


def publish(celery: Celery, job_id: str, queue_name: str = QUEUE_NAME) -> bool:
    """Wake a worker for a job: best effort, quick, never raises.

    Returns:
        Whether the broker took the message. If not, the reaper will publish it again.
    """
    try:
        celery.send_task(RUN_TASK, args=[job_id], queue=queue_name, retry=False)
    except Exception as error:  # each client library has errors of its own
        _log.warning("queue.publish_failed", job_id=job_id, error=type(error).__name__, reason=first_line(error))
        return False
    return True


def depth(celery: Celery, queue_name: str = QUEUE_NAME) -> int | None:
    """Count the messages of a queue that no worker has taken yet; None where the broker does not answer."""
    try:
        with celery.connection_for_write(connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
            return int(connection.default_channel.queue_declare(queue=queue_name, durable=True).message_count)
    except Exception as error:  # as above
        _log.warning("queue.unreachable", error=type(error).__name__, reason=first_line(error))
        return None


def check(celery: Celery) -> None:
    """Connect to the broker once; raises the client library's error where that fails."""
    with celery.connection_for_write(connect_timeout=2) as connection:
        connection.ensure_connection(max_retries=1, timeout=2)


class Announcer:
    """Publishes ids from a thread, so that nobody who submits a job waits for the broker.

    The first of a crowd go out at once, the others at an even pace: a worker that is awake works until nothing is due, so that
    a message for each of many jobs would only cost time.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._waiting: queue.Queue[tuple[str, str] | None] = queue.Queue(_MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._dropped_at = -math.inf

    def announce(self, job_id: str, pool: str | None = None) -> None:
        """Request that a worker be woken for a job, soon: one of a pool, or any."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait((job_id, QUEUE_NAME if pool is None else pool_queue(pool)))
        except queue.Full:
            moment = time.monotonic()
            if moment - self._dropped_at > _DROPPED_EVERY_S:
                self._dropped_at = moment
                _log.warning("queue.announcements_dropped", job_id=job_id, waiting=_MOST_WAITING)

    def close(self, patience_s: float = 1) -> None:
        """Publish what is waiting, as far as that goes quickly."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            try:
                self._waiting.put(None, timeout=patience_s)
            except queue.Full:
                return
            thread.join(patience_s)

    def _run(self) -> None:
        quiet_until, ready, counted_at = 0.0, float(_AT_ONCE), time.monotonic()
        while (message := self._waiting.get()) is not None:
            # While the broker is out of reach, an attempt for every id would only fill the log.
            if time.monotonic() < quiet_until:
                continue
            moment = time.monotonic()
            ready, counted_at = min(float(_AT_ONCE), ready + (moment - counted_at) * _PER_S), moment
            if ready < 1:
                time.sleep((1 - ready) / _PER_S)
            ready -= 1
            if not publish(self._celery, *message):
                quiet_until = time.monotonic() + _PAUSE_S
