"""A server that does nothing but insert: what a submit is compared with. ``python -m benchmarks.bare DATABASE_URL PORT``.

The API's own web server, event loop, parser and pool of threads, the same database by the same driver with the same
durability. Each request is one row of the table of jobs, inserted in a transaction of its own by one statement of the driver:
no check, no limit, no event, no audit row, no place in the queue.
"""

from __future__ import annotations

import json
import sys
from uuid import uuid4

import sqlalchemy as sa
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.db import Database

_COLUMNS = (
    "id, owner, status, priority, spec, metadata, version, fence, cancel_requested, attempt, crashes, losses, not_before, "
    "publish_count, created_at"
)
_VALUES = "'', 'queued', 0, {}, '{{}}', 1, 0, false, 0, 0, 0, 0, 0, 0"


class Inserts:
    """Inserts into a database.

    Args:
        url: Of the database.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        mark = "?" if self._database.is_sqlite else "%s"
        self._statement = f"INSERT INTO jobs ({_COLUMNS}) VALUES ({mark}, {_VALUES.format(mark)})"  # noqa: S608 - all ours

    def one(self, spec: str) -> str:
        """Insert a job in a transaction of its own. Return its id."""
        job_id = f"job_{uuid4().hex}"
        with self._database.write() as connection:
            connection.exec_driver_sql(self._statement, (job_id, spec))
        return job_id

    def count(self) -> int:
        """Count the jobs."""
        with self._database.read() as connection:
            return connection.execute(sa.text("SELECT count(*) FROM jobs")).scalar_one()

    def close(self) -> None:
        """Close the connections."""
        self._database.close()


def create_app(url: str) -> Starlette:
    inserts = Inserts(url)

    async def create(request: Request) -> JSONResponse:
        spec = json.dumps(await request.json())
        job_id = await run_in_threadpool(inserts.one, spec)
        return JSONResponse({"id": job_id}, status_code=202)

    async def listed(_request: Request) -> JSONResponse:  # so that clients see that it is there
        return JSONResponse({"object": "list", "data": [], "has_more": False, "next": None})

    return Starlette(routes=[Route("/v1/jobs", create, methods=["POST"]), Route("/v1/jobs", listed)])


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[1]), port=int(sys.argv[2]), loop="asyncio", http="h11", log_config=None)
