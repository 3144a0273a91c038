"""The two profiles, each with fresh state for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.service import Backend, Service


@pytest.fixture(params=["local", "redis-postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Either profile of the design."""
    if request.param == "local":
        return Backend("local", tmp_path / "data", "", "")
    database_url, broker_url = request.getfixturevalue("postgres_url"), request.getfixturevalue("redis_url")
    return Backend("redis-postgres", tmp_path / "data", database_url, broker_url)


@pytest.fixture
def service(backend: Backend, tmp_path: Path, tiny_bert: Path, tiny_sst2: Path) -> Service:
    """A service that may read the tiny model and data; nothing runs yet."""
    return Service(backend, tmp_path, tiny_bert, tiny_sst2)
