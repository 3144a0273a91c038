"""An S3-compatible service as artifact store."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.storage.base import CHUNK, ArtifactMissing, StoreUnavailable, parts_of

_PAGE = 1000
_MISSING = frozenset({"NoSuchKey", "404"})


class S3ArtifactStore:
    """A bucket, or a prefix of one. An object appears when its upload is complete.

    Credentials, region and endpoint are found as every AWS client finds them. Connects to nothing before it is used.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/prefix``.
    """

    def __init__(self, url: str) -> None:
        from boto3.session import Session
        from botocore.config import Config

        bucket, _slash, prefix = url.removeprefix("s3://").partition("/")
        self._bucket = bucket
        self._root = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        config = Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"max_attempts": 2, "mode": "standard"},
            # Services other than AWS may not know the newer checksums, and the database has the sha256 anyway.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        # Each store has a client of its own: clients do not survive a fork, and workers fork.
        self._client: Any = Session().client("s3", config=config)

    def put(self, key: str, source: Path) -> tuple[int, str]:
        """Store a file; a large one in parts, which become an object all at once."""
        name = self._name(key)
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with _translated(key):
            self._client.upload_file(str(source), self._bucket, name)
        return source.stat().st_size, sha256

    def open(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Stream a range of an object."""
        name = self._name(key)
        with _translated(key):
            if start >= stop:  # HTTP has no empty range
                self._client.head_object(Bucket=self._bucket, Key=name)
                return iter(())
            body = self._client.get_object(Bucket=self._bucket, Key=name, Range=f"bytes={start}-{stop - 1}")["Body"]

        def chunks() -> Iterator[bytes]:
            with body, _translated(key):
                yield from body.iter_chunks(CHUNK)

        return chunks()

    def keys(self, prefix: str, *, after: str, limit: int) -> list[str]:
        """List the objects under a prefix."""
        found: list[str] = []
        while len(found) < limit:
            page = self._page(f"{self._name(prefix)}/", f"{self._root}{after}" if after else "", limit - len(found))
            found += [name.removeprefix(self._root) for name in page]
            if len(page) < min(_PAGE, limit):
                break
            after = found[-1]
        return found[:limit]

    def delete_prefix(self, prefix: str) -> None:
        """Delete the objects under a prefix, a page at a time."""
        while page := self._page(f"{self._name(prefix)}/", "", _PAGE):
            with _translated(prefix):
                doomed = {"Objects": [{"Key": name} for name in page], "Quiet": True}
                failed = self._client.delete_objects(Bucket=self._bucket, Delete=doomed).get("Errors", [])
            if failed:
                raise StoreUnavailable(f"objects cannot be deleted: {failed[0].get('Code')}")

    def check(self) -> None:
        """See that the bucket answers."""
        with _translated(""):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._root, MaxKeys=1)

    def _page(self, prefix: str, after: str, limit: int) -> list[str]:
        options = {"StartAfter": after} if after else {}
        with _translated(prefix):
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=min(_PAGE, limit), **options)
        return [item["Key"] for item in page.get("Contents", [])]

    def _name(self, key: str) -> str:
        return self._root + "/".join(parts_of(key))


@contextmanager
def _translated(key: str) -> Generator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise ArtifactMissing(key) from error
        raise StoreUnavailable(str(error)) from error
    except (BotoCoreError, Boto3Error) as error:
        raise StoreUnavailable(str(error)) from error
