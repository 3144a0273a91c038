"""``make bench-service``: the time that the service adds to a job, and the load that it bears.

Both profiles run with real processes on this host: API, workers, Redis and PostgreSQL. Jobs only sleep
(`tests.faults.sleeper`), because real work would blur the figures. Prints tables and writes
``benchmarks/results/service.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.load import CLIENTS, load, p99, timed
from benchmarks.profiles import Bench, profiles
from coppice import Client
from tests.faults.cluster import HEARTBEAT_S
from tests.faults.sleeper import FINISHED
from tests.faults.test_scale import QUEUED, cancel_queued, claims, fill_queue
from tests.integration.service import child_of
from tests.servers import wait_until

Figures = dict[str, float]


def throughput(bench: Bench, seconds: float) -> Figures:
    """Measure submits, then polls and lists, from 32 connections at once."""
    cluster = bench.cluster()
    body = bench.nap(0).model_dump_json()
    with cluster.api() as client:
        submit_ms = load(cluster.url, "POST", "/v1/jobs", lambda _number: body, seconds)
        job = client.list(limit=1)[0]
        poll_ms = load(cluster.url, "GET", f"/v1/jobs/{job.id}", None, seconds)
        list_ms = load(cluster.url, "GET", "/v1/jobs?limit=20", None, seconds / 2)
    return {
        "submit_per_s": len(submit_ms) / seconds,
        "submit_p50_ms": statistics.median(submit_ms),
        "submit_p99_ms": p99(submit_ms),
        "poll_per_s": len(poll_ms) / seconds,
        "poll_p50_ms": statistics.median(poll_ms),
        "poll_p99_ms": p99(poll_ms),
        "list_per_s": len(list_ms) / (seconds / 2),
        "list_p99_ms": p99(list_ms),
    }


def overhead(bench: Bench, repeats: int) -> Figures:
    """Measure the times from POST to claim, from work done to `succeeded` at the client, and from cancel to process end."""
    cluster = bench.cluster()
    claim_s, visible_s, gone_s = [], [], []
    with cluster.api() as client, cluster.sleeping_worker() as worker:
        client.wait(client.submit(bench.nap(0)).id)  # warm up
        for _ in range(repeats):
            posted = time.time()
            job = client.submit(bench.nap(0.5))
            client.wait(job.id)
            seen = time.time()
            claim_s.append(cluster.event_times(job.id, "job.started")[0] - posted)
            with tempfile.TemporaryDirectory() as name:
                visible_s.append(seen - float((client.download(job.id, Path(name)) / FINISHED).read_text()))
        for _ in range(repeats):
            job = client.submit(bench.nap(60))
            child = child_of(worker, job.id)
            time.sleep(1)
            began = time.monotonic()
            client.cancel(job.id)
            wait_until(lambda child=child: not _alive(child), "the process to be gone")
            gone_s.append(time.monotonic() - began)
            client.wait(job.id)
    return {
        "post_to_claim_s": statistics.median(claim_s),
        "post_to_claim_max_s": max(claim_s),
        "done_to_visible_s": statistics.median(visible_s),
        "done_to_visible_max_s": max(visible_s),
        "overhead_max_s": max(map(sum, zip(claim_s, visible_s, strict=True))),
        "cancel_to_gone_s": statistics.median(gone_s),
        "cancel_to_gone_max_s": max(gone_s),
    }


def watching(bench: Bench, streams: int, seconds: float) -> Figures:
    """Measure what event streams of waiting jobs cost while nothing changes, and a list beside them."""
    cluster = bench.cluster()

    async def streaming(jobs: list[str], api: psutil.Process, client: Client) -> Figures:
        address = urlsplit(cluster.url)
        opened: list[asyncio.StreamWriter] = []
        for index in range(streams):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            path = f"/v1/jobs/{jobs[index % len(jobs)]}/events"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n\r\n".encode())
            await reader.readuntil(b"job.queued")
            opened.append(writer)
        await asyncio.sleep(2)
        before = sum(api.cpu_times()[:2])
        await asyncio.sleep(seconds)
        busy = (sum(api.cpu_times()[:2]) - before) / seconds
        listed = [await asyncio.to_thread(timed, lambda: client.list(limit=20)) for _ in range(20)]
        for writer in opened:
            writer.close()
        return {"streams": float(streams), "core_share": busy, "list_beside_ms": statistics.median(listed)}

    with cluster.api() as client:
        jobs = [client.submit(bench.nap(60)).id for _ in range(50)]
        port = int(urlsplit(cluster.url).port or 0)
        api = next(
            own for own in psutil.Process().children(recursive=True) if "api" in own.cmdline() and str(port) in own.cmdline()
        )
        return asyncio.run(streaming(jobs, api, client))


def waking(bench: Bench, repeats: int) -> Figures:
    """Measure how long after a change, which another connection asks for, a long poll of the job answers."""
    cluster = bench.cluster()
    woken_ms = []
    with cluster.api() as client, ThreadPoolExecutor(1) as pool:
        for _ in range(repeats):
            job = client.submit(bench.nap(60))
            polled = pool.submit(_answered_at, cluster.url, job.id)
            time.sleep(0.7)
            began = time.monotonic()
            client.cancel(job.id)
            woken_ms.append(1000 * (polled.result() - began))
    return {"wake_up_ms": statistics.median(woken_ms), "wake_up_max_ms": max(woken_ms)}


def backlog(bench: Bench) -> Figures:
    """Measure lists, claims and memory with ten thousand jobs in the queue."""
    cluster = bench.cluster()
    fill_queue(cluster, bench.nap(0), QUEUED)
    with cluster.faulty_api() as api, Client(cluster.url) as client:
        client.list()
        before = api.memory_info().rss
        with cluster.sleeping_worker() as worker:
            wait_until(lambda: claims(cluster) > 2, "the first claims")
            worker_before = worker.memory_info().rss
            list_ms = [timed(lambda: client.list(limit=20)) for _ in range(100)]
            wait_until(lambda: claims(cluster) > 20, "twenty claims", 120)
            figures = {
                "list_p99_ms": p99(list_ms),
                "api_growth_mb": (api.memory_info().rss - before) / 2**20,
                "worker_growth_mb": (worker.memory_info().rss - worker_before) / 2**20,
                "messages": float(cluster.backend.messages()),
            }
    cancel_queued(cluster)
    return figures


def scaling(bench: Bench, nap_s: float, jobs_each: int) -> Figures:
    """Measure the throughput of 1, 2 and 4 workers on sleeping jobs, from the first claim to the last end."""
    figures: Figures = {}
    for count in (1, 2, 4):
        cluster = bench.cluster()
        with cluster.api() as client, ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(cluster.sleeping_worker())
            warm = [client.submit(bench.nap(0.1)).id for _ in range(count)]
            cluster.await_finish(warm)
            began = time.monotonic()
            ids = [client.submit(bench.nap(nap_s)).id for _ in range(jobs_each * count)]
            cluster.await_finish(ids, timeout_s=300)
            figures[f"workers_{count}_jobs_per_s"] = len(ids) / (time.monotonic() - began)
        outcome = cluster.verify([*warm, *ids])
        assert outcome.fences == len(warm) + len(ids)
    for count in (2, 4):
        figures[f"workers_{count}_efficiency"] = (
            figures[f"workers_{count}_jobs_per_s"] / figures["workers_1_jobs_per_s"] / count
        )
    return figures


def _answered_at(url: str, job_id: str) -> float:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    connection.request("GET", f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30"})
    assert json.loads(connection.getresponse().read())["status"] == "cancelled"
    connection.close()
    return time.monotonic()


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# The largest value that a figure may have; with >, the smallest.
TARGETS = {
    "overhead_max_s": "1",
    "cancel_to_gone_max_s": str(HEARTBEAT_S + 1),
    "list_p99_ms": "100",
    "core_share": "0.1",
    "list_beside_ms": "50",
    "workers_2_efficiency": ">0.85",
    "workers_4_efficiency": ">0.8",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="how long each load lasts")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--streams", type=int, default=1000, help="event streams that are open at once")
    parser.add_argument("--parts", nargs="+", default=None, help="words of the parts to run; all of them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/service.json"))
    options = parser.parse_args()
    parts: dict[str, Callable[[Bench], Figures]] = {
        f"throughput, {CLIENTS} clients, one API process": lambda bench: throughput(bench, options.seconds),
        "service overhead of a job, one worker": lambda bench: overhead(bench, options.repeats),
        f"{options.streams} event streams, nothing changes": lambda bench: watching(bench, options.streams, options.seconds),
        "wake-up of a long poll, from the request that changes the job": lambda bench: waking(bench, options.repeats),
        f"{QUEUED:,} queued".replace(",", " "): backlog,
        "workers on jobs that sleep for 3 s": lambda bench: scaling(bench, 3, 6),
    }
    results: dict[str, dict[str, Figures]] = {}
    with profiles() as benches:
        for part, measure in parts.items():
            if options.parts is not None and not any(word in part for word in options.parts):
                continue
            results[part] = {bench.profile: measure(bench) for bench in benches}
            _print(part, results[part])
    document = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(), "results": results}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; written to {options.out}")


def _print(part: str, found: dict[str, Figures]) -> None:
    print(f"\n{part}")
    profiles = list(found)
    print(f"  {'':26}" + "".join(f"{profile:>24}" for profile in profiles) + f"{'target':>10}")
    for name in found[profiles[0]]:
        target = TARGETS.get(name, "") if not (name == "list_p99_ms" and "clients" in part) else ""
        shown = f"<={target}" if target and not target.startswith(">") else target
        print(f"  {name:26}" + "".join(f"{found[profile][name]:24.3f}" for profile in profiles) + f"{shown:>10}", flush=True)


if __name__ == "__main__":
    main()
