"""The broker wakes workers: a message is an id, and a broker that is down or silent never holds a submit up."""

import base64
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

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


def test_announcing_never_waits_for_a_silent_broker(settings, silent_port):
    celery = queue.create_celery(settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{silent_port}/0"}))
    announcer = queue.Announcer(celery)
    began = time.monotonic()
    for _ in range(3000):
        announcer.announce("job_x")
    assert time.monotonic() - began < 2
    announcer.close(patience_s=0.1)


def test_what_was_announced_is_published_before_the_end(settings):
    announcer = queue.Announcer(celery := queue.create_celery(settings))
    for _ in range(20):
        announcer.announce("job_x")
    announcer.close(patience_s=30)
    assert queue.depth(celery) == 20


def test_the_depth_of_redis_is_known_and_of_nothing_is_not(settings, redis_url):
    celery = queue.create_celery(settings.model_copy(update={"broker_url": redis_url}))
    assert queue.depth(celery) == 0
    for _ in range(3):
        assert queue.publish(celery, "job_x")
    assert queue.depth(celery) == 3
    celery.close()
    assert queue.depth(queue.create_celery(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))) is None


def test_broken_messages_are_dropped_and_each_is_taken_once(settings):
    celery = queue.create_celery(settings)
    folder = settings.data_dir / "broker" / "messages"
    for index, text in enumerate(("", "{", "\0\0")):
        (folder / f"{index}.{queue.QUEUE_NAME}.msg").write_text(text)
    for _ in range(20):
        assert queue.publish(celery, "job_x")

    def drain(_reader):
        with celery.connection_for_read() as connection:
            channel, count = connection.channel(), 0
            while (message := channel.basic_get(queue.QUEUE_NAME, no_ack=True)) is not None:
                count += message.headers["task"] == queue.RUN_TASK
            return count

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(drain, range(4))) == 20
    assert list(folder.iterdir()) == []


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
