"""The watch beside an attack, a process of its own: ``python watch.py PORT PID LOG LIMIT_BYTES``.

Each 20 ms it asks for /healthz over a connection of its own, and each 50 ms it adds up the memory of the API and its children.
A line ``h MOMENT SECONDS LATE`` or ``m MOMENT BYTES`` a sample goes into the log: ``LATE`` is by how much longer than asked the
watch itself slept, which is the host's share in the sample. At twice the limit it kills the API, so that the host lives.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
import threading
import time

import psutil

PAUSE_S = 0.02
PATIENCE_S = 10.0


def sample_health(port: int, log: list[str]) -> None:
    """Ask for ever."""
    connection: http.client.HTTPConnection | None = None
    while True:
        before = time.monotonic()
        time.sleep(PAUSE_S)
        began = time.monotonic()
        late = began - before - PAUSE_S
        try:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer.read()
            took = time.monotonic() - began if answer.status == 200 else PATIENCE_S
        except (OSError, http.client.HTTPException):
            took = max(PATIENCE_S, time.monotonic() - began)
            if connection is not None:
                connection.close()
            connection = None
        log.append(f"h {began:.4f} {took:.5f} {late:.5f}")


def sample_memory(pid: int, limit: int, log: list[str]) -> None:
    """Add up for ever."""
    while True:
        size = resident(pid)
        log.append(f"m {time.monotonic():.4f} {size}")
        if size > 2 * limit:
            for one in family(pid):
                with contextlib.suppress(psutil.Error):
                    one.kill()
        time.sleep(0.05)


def family(pid: int) -> list[psutil.Process]:
    """Find a process and its children."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def resident(pid: int) -> int:
    """Add up the resident memory of a process and its children."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def main(port: int, pid: int, path: str, limit: int) -> None:
    """Sample until the standard input ends."""
    log: list[str] = []
    threading.Thread(target=sample_health, args=(port, log), daemon=True).start()
    threading.Thread(target=sample_memory, args=(pid, limit, log), daemon=True).start()
    written = 0

    def write() -> None:
        nonlocal written
        new = log[written:]
        with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 - a script of the standard library and psutil
            file.writelines(f"{line}\n" for line in new)
        written += len(new)

    def flush() -> None:
        while True:
            write()
            time.sleep(0.1)

    threading.Thread(target=flush, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
