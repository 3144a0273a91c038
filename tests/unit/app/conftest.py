"""A real database in a temporary folder, migrated."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.db import Database
from app.settings import Settings
from migrations import upgrade


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, settings):
    url = settings.resolved_database_url if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    upgrade(database)
    yield database
    database.close()
