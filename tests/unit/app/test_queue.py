"""The broker wakes workers: a message is an id, and a broker that is down or silent never holds a submit up."""

import base64
import json
import socket
import time

import pytest
import redis

from app import queue
from app.settings import Settings


@pytest.fixture
def silent_port():
    """A port that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]


def _timed_publish(settings):
    celery = queue.create_celery(settings, socket_timeout_s=2)
    began = time.monotonic()
    return queue.publish(celery, "job_x"), time.monotonic() - began


def test_the_local_broker_is_a_folder(settings):
    celery = queue.create_celery(settings)
    queue.check(celery)
    assert queue.publish(celery, "job_x")
    (message,) = (settings.data_dir / "broker" / "messages").iterdir()
    assert queue.QUEUE_NAME in message.name


def test_redis_gets_the_id_and_nothing_else(settings, redis_url):
    celery = queue.create_celery(settings.model_copy(update={"broker_url": redis_url}))
    queue.check(celery)
    assert queue.publish(celery, "job_x")
    with redis.Redis.from_url(redis_url) as connection:
        (message,) = connection.lrange(queue.QUEUE_NAME, 0, -1)
    arguments, keywords, _embedded = json.loads(base64.b64decode(json.loads(message)["body"]))
    assert (arguments, keywords) == (["job_x"], {})
    celery.close()


def test_a_broker_that_is_down_costs_two_seconds_at_most(settings):
    published, seconds = _timed_publish(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    assert not published
    assert seconds < 4


def test_a_broker_that_is_silent_costs_two_seconds_at_most(settings, silent_port):
    published, seconds = _timed_publish(settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{silent_port}/0"}))
    assert not published
    assert seconds < 4


def test_no_running_job_is_delivered_again():
    settings = Settings(broker_url="redis://127.0.0.1/0", job_timeout_s=100_000)
    conf = queue.create_celery(settings).conf
    assert conf.broker_transport_options["visibility_timeout"] > settings.job_timeout_s
    assert conf.result_backend_transport_options["visibility_timeout"] > settings.job_timeout_s
    assert conf.visibility_timeout > settings.job_timeout_s


def test_the_settings_that_the_protocol_rests_on():
    conf = queue.create_celery(Settings(broker_url="redis://127.0.0.1/0")).conf
    assert conf.task_acks_late
    assert not conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1
    assert conf.broker_connection_max_retries is None
    assert not conf.worker_cancel_long_running_tasks_on_connection_loss
    assert conf.accept_content == ["json"]
