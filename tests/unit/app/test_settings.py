"""What the environment asks for and cannot be is said in one line, by every process, before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings, SettingsInvalid, get_settings
from app.settings_page import page

WRONG = [
    ("COPPICE_DATABASE_URL", "mysql://me:secret@host/db", "must begin with"),
    ("COPPICE_DATABASE_URL", "host:5432/db", "must be a URL"),
    ("COPPICE_BROKER_URL", "amqp://secret@host", "redis://"),
    ("COPPICE_BROKER_URL", "localhost:6379", "redis://"),
    ("COPPICE_ARTIFACTS_URL", "gs://bucket", "s3://bucket"),
    ("COPPICE_LEASE_S", "-1", "greater than 0"),
]
PROCESSES = [
    ["-m", "uvicorn", "app.main:create_app", "--factory", "--port", "0"],
    ["-m", "worker.main"],
    ["-m", "coppice.cli", "migrate"],
    ["-m", "coppice.cli", "serve", "--port", "0"],
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_wrong_variable_is_named_and_its_value_is_not_shown(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    with pytest.raises(SettingsInvalid) as error:
        get_settings()
    assert name in str(error.value)
    assert message in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("command", PROCESSES)
def test_every_process_ends_with_the_sentence_and_no_trace(monkeypatch, tmp_path, command):
    monkeypatch.setenv("COPPICE_DATABASE_URL", "mysql://me:secret@host/db")
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode not in (0, None)
    said = " ".join(done.stderr.split())
    assert "COPPICE_DATABASE_URL: must begin with" in said
    assert "Traceback" not in said
    assert "secret" not in said


@pytest.mark.parametrize("command", PROCESSES)
def test_a_data_folder_that_cannot_be_is_said_too(monkeypatch, tmp_path, command):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COPPICE_DATA_DIR", str(tmp_path / "file" / "data"))
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode not in (0, None)
    assert "cannot be used" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("given", ["postgres://u@h/d", "postgresql://u@h/d", "postgresql+psycopg://u@h/d"])
def test_what_hosting_providers_hand_out_is_understood(given):
    assert Settings(database_url=given).resolved_database_url == "postgresql+psycopg://u@h/d"


def test_migrating_a_database_that_is_not_there_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("COPPICE_DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/d")
    done = subprocess.run(
        [sys.executable, "-m", "coppice.cli", "migrate"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "the database cannot be used" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_the_page_of_settings_is_current():
    written = Path(__file__).resolve().parents[3] / "docs" / "guides" / "settings.md"
    assert written.read_text(encoding="utf-8") == page(), "make settings-page"


def test_the_page_names_every_setting_and_no_secret(monkeypatch):
    monkeypatch.setenv("COPPICE_SECRET", "hunter2" * 8)
    told = page()
    assert all(f"`COPPICE_{name.upper()}`" in told for name in Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"COPPICE_DEVICES": "cuda:0,cpu"}, "must be of one class"),
        ({"COPPICE_DEVICES": "cuda:0,cuda:0"}, "must name each GPU once"),
        ({"COPPICE_DEVICES": "cpu,cpu", "COPPICE_DEVICE": "cpu"}, "set one of them"),
        ({"COPPICE_WORKER_TAGS": "A100"}, "a tag has 1 to 24 small letters"),
        ({"COPPICE_WORKER_TAGS": "a,b,c,d,e,f,g"}, "at most 6"),
    ],
)
def test_devices_and_tags_that_cannot_be_are_refused(monkeypatch, given, message):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    with pytest.raises(SettingsInvalid, match=message):
        get_settings()


def test_devices_stand_for_the_device(monkeypatch):
    assert Settings().resolved_devices == ("",)
    assert Settings(device="cuda:1").resolved_devices == ("cuda:1",)
    monkeypatch.setenv("COPPICE_DEVICES", "cuda:0, cuda:1")
    assert Settings().resolved_devices == ("cuda:0", "cuda:1")


def test_no_group_of_settings_hides_a_validator_of_another():
    groups = [base.__pydantic_decorators__ for base in Settings.__bases__]
    names = [name for found in groups for name in (*found.field_validators, *found.model_validators)]
    assert len(names) == len(set(names)) > 10
