"""What says that a disk is full, by the errors that real drivers and files raise."""

import errno
import os
import sqlite3

import pytest
import sqlalchemy as sa

from app.disk import is_disk_full

FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]


@pytest.mark.parametrize("number", FULL)
def test_a_file_that_cannot_grow(number):
    error = OSError(number, os.strerror(number))
    assert is_disk_full(error)
    assert is_disk_full(RuntimeError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"))
    assert is_disk_full(sa.exc.OperationalError("INSERT", {}, error))


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), OSError("no number"), ValueError("full"), MemoryError()])
def test_what_says_nothing_of_room(error):
    assert not is_disk_full(error)
    assert not is_disk_full(sa.exc.OperationalError("INSERT", {}, error))


def test_a_path_that_quotes_the_system_s_words_is_no_full_disk():
    assert not is_disk_full(FileNotFoundError(errno.ENOENT, "not found", f"/{os.strerror(errno.ENOSPC)}"))


def test_a_full_sqlite():
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE a (x)")
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # as many as there are, at the least
        with pytest.raises(sa.exc.OperationalError) as found:
            connection.exec_driver_sql("CREATE TABLE b (x)")
    engine.dispose()
    assert is_disk_full(found.value)
    assert is_disk_full(found.value.orig)
    assert isinstance(found.value.orig, sqlite3.Error)


def test_a_full_postgresql():
    class DiskFull(Exception):
        sqlstate = "53100"

    assert is_disk_full(sa.exc.OperationalError("INSERT", {}, DiskFull("could not extend file")))
    assert not is_disk_full(sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked")))
