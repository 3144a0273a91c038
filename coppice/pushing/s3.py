"""Pushing to an object store that speaks S3, by boto3, as the service's own store does."""

from __future__ import annotations

import mimetypes
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from coppice.pushing.base import Account, Pushed, PushRefused, PushUnreachable
from coppice.pushing.bundle import MANIFEST_FILE, Bundle, BundleFile, few
from coppice.pushing.destinations import Bucket

_DIGEST = "sha256"  # metadata of each object: S3's own checksums are of parts, and not of every service
_DENIED = frozenset({"AccessDenied", "403", "AllAccessDisabled"})
_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
_MOST_LISTED = 10_000


def push(bundle: Bundle, to: Bucket, account: Account) -> Pushed:
    """Send the files of a bundle, the manifest last. Objects with the same digest stay as they are.

    Raises:
        PushRefused: There is no such bucket, or no key, or none that may write there.
        PushUnreachable: Nothing answers, or the store is out of order.
    """
    with _translated(to):
        client = _client()
        known = _names(client, to)
        files = sorted(bundle.files, key=lambda file: file.path == MANIFEST_FILE)
        for file in files:
            if (known is None or file.path in known) and _is_there(client, to, file):
                account.skip(file)
            else:
                _send(client, to, file, account)
                account.finish(file)
    others = sorted((known or set()) - {file.path for file in bundle.files})
    notes = (f"{to.url} holds other files, too, which are not of this bundle: {few(others)}",) if others else ()
    return Pushed(to.url, None, notes)


def _client() -> Any:
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"max_attempts": 4, "mode": "standard"},
        # As the service's store: services other than AWS may not know the newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return Session().client("s3", config=config)


def _names(client: Any, to: Bucket) -> set[str] | None:
    """Return which files are there, by their path in the bundle; None where this key may not list."""
    from botocore.exceptions import ClientError

    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=to.name, Prefix=f"{to.prefix}/", PaginationConfig={"MaxItems": _MOST_LISTED}
    )
    try:
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    except ClientError as error:
        if _code(error) in _DENIED:
            return None
        raise
    return None if len(keys) >= _MOST_LISTED else {key.removeprefix(f"{to.prefix}/") for key in keys}


def _is_there(client: Any, to: Bucket, file: BundleFile) -> bool:
    from botocore.exceptions import ClientError

    try:
        found = client.head_object(Bucket=to.name, Key=f"{to.prefix}/{file.path}")
    except ClientError as error:
        if _code(error) in {"404", "NoSuchKey", *_DENIED}:  # who may only write is told 403 of what is not there
            return False
        raise
    return found["ContentLength"] == file.size and found.get("Metadata", {}).get(_DIGEST) == file.sha256


def _send(client: Any, to: Bucket, file: BundleFile, account: Account) -> None:
    account.begin(file)
    kind = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
    client.upload_file(
        str(file.source),
        to.name,
        f"{to.prefix}/{file.path}",
        ExtraArgs={"Metadata": {_DIGEST: file.sha256}, "ContentType": kind},
        Callback=account.add,
    )


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _translated(to: Bucket) -> Generator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError):
        raise PushRefused(
            "no key for the object store was found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        ) from None
    except ClientError as error:
        raise _refusal(_code(error), to) from None
    except (BotoCoreError, Boto3Error) as error:
        cause = error.__context__  # boto3 wraps what the store said of an upload
        if isinstance(cause, ClientError):
            raise _refusal(_code(cause), to) from None
        raise PushUnreachable(
            f"no answer from the object store ({type(error).__name__}); is AWS_ENDPOINT_URL right, where it is not AWS's own?"
        ) from None


def _refusal(code: str, to: Bucket) -> PushRefused | PushUnreachable:
    if code in {"NoSuchBucket", "404"}:
        return PushRefused(f"there is no bucket {to.name} there; make it first, or correct the name or AWS_ENDPOINT_URL")
    if code in _DENIED:
        return PushRefused(f"the key may not write to {to.url}; its policy must allow s3:PutObject, and s3:GetObject to resume")
    if code in _KEYS:
        return PushRefused(f"the object store does not take the key of AWS_ACCESS_KEY_ID ({code}); correct or renew it")
    if code in {"InternalError", "ServiceUnavailable", "SlowDown", "500", "503"}:
        return PushUnreachable(f"the object store is busy or out of order ({code}); try again later")
    return PushRefused(f"the object store refused ({code or 'no reason given'})")
