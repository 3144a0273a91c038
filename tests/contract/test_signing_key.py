"""GET /v1/signing-key: the public keys, or why there are none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.conftest import Api
from tests.unit.worker.test_signing import write_key

PATH = "/v1/signing-key"


def test_the_local_profile_publishes_the_key_of_its_data_folder(api_on_sqlite: Api) -> None:
    found = api_on_sqlite.client.get(PATH)
    assert found.status_code == 200
    key = found.json()
    assert hashlib.sha256(key["public_key"].encode()).hexdigest() == key["key_id"]
    assert key["earlier"] == []
    assert "PRIVATE" not in found.text
    assert api_on_sqlite.client.get(PATH).json() == key


def test_the_current_key_is_first_and_earlier_ones_follow(make_api: Callable[..., Api], tmp_path: Path) -> None:
    (_, new), (_, old) = write_key(tmp_path, "new"), write_key(tmp_path, "old")
    api = make_api("", signing_public_keys=(new, old), signing_key=tmp_path / "on the workers alone.pem")
    key = api.client.get(PATH).json()
    assert key["public_key"] == new.read_text()
    assert [earlier["public_key"] for earlier in key["earlier"]] == [old.read_text()]


def test_where_bundles_are_not_signed_the_answer_says_so(make_api: Callable[..., Api], tmp_path: Path) -> None:
    answer = make_api(f"sqlite+pysqlite:///{tmp_path}/own.db").client.get(PATH)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_signing_key")
    assert "COPPICE_SIGNING_KEY" in answer.json()["detail"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_cannot_be_changed(api_on_sqlite: Api, method: str) -> None:
    assert api_on_sqlite.client.request(method, PATH).status_code == 405


def test_with_keys_on_a_key_is_asked_for(make_api: Callable[..., Api]) -> None:
    assert make_api("", auth=True, secret="s" * 32).client.get(PATH).status_code == 401
