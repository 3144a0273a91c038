"""The async twin runs the same operations over the same socket."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from coppice import ApiError, AsyncClient, JobUnsuccessful, ServiceUnreachable
from tests.servers import free_port
from tests.unit.coppice.conftest import FILES, Live


def test_prune_wait_and_download(live: Live, tmp_path: Path) -> None:
    async def work() -> tuple[Path, list[str], list[str]]:
        async with AsyncClient(live.url) as client:
            spec = live.spec.model_dump(mode="json")
            job = await client.prune(spec.pop("model"), spec.pop("task"), options=spec, metadata={"run": "7"})
            assert [found.id for found in await client.list(metadata={"run": "7"})] == [job.id]
            threading.Timer(0.3, live.succeed).start()
            followed = [event.type async for event in job.events()]
            seen: list[str] = []
            bundle = await (await job.wait(lambda now: seen.append(now.status))).download(tmp_path / "bundle")
            assert (await job.report()).target.achieved == 0.501
            return bundle, followed, seen

    bundle, followed, seen = asyncio.run(work())
    assert {path: (bundle / path).read_bytes() for path in FILES} == FILES
    assert followed == ["job.queued", "job.started", "job.succeeded"]
    assert seen == ["succeeded"]


def test_many_at_once(live: Live) -> None:
    async def work() -> set[str]:
        async with AsyncClient(live.url) as client:
            return {job.id for job in await asyncio.gather(*(client.submit(live.spec) for _ in range(5)))}

    assert len(asyncio.run(work())) == 5


def test_folders_are_uploaded(live: Live, tiny_bert: Path, tiny_sst2: Path) -> None:
    async def work() -> str:
        async with AsyncClient(live.url) as client:
            job = await client.prune(tiny_bert, "glue/sst2", sparsity=0.5, data=tiny_sst2)
            return str(job.latest.spec["model"])

    assert asyncio.run(work()).startswith("mdl_")


def test_errors_are_the_same(live: Live) -> None:
    async def missing() -> None:
        async with AsyncClient(live.url) as client:
            await client.get("job_nothing")

    async def nobody() -> None:
        async with AsyncClient(f"http://127.0.0.1:{free_port()}", retry_for_s=0.2) as client:
            await client.list()

    async def failing() -> None:
        async with AsyncClient(live.url) as client:
            job = await client.submit(live.spec)
            threading.Thread(target=live.fail).start()
            await (await client.job(job.id)).wait()

    with pytest.raises(ApiError) as refused:
        asyncio.run(missing())
    assert refused.value.code == "job_not_found"
    with pytest.raises(ServiceUnreachable):
        asyncio.run(nobody())
    with pytest.raises(JobUnsuccessful, match="too coarse"):
        asyncio.run(failing())
