"""Kinds of artifact stores by the scheme of their URLs. Without a URL, the store is a folder.

Settings check URLs against this table, and `app.storage` builds stores from it: a kind of store is one class and one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class StoreKind:
    """A kind of artifact store.

    Attributes:
        made_by: The store's class, as ``module:name``, which takes the URL; imported when a store is built.
        shape: The form of valid URLs, for messages and the settings page.
        options: A sentence for the settings page on where the store's other options come from.
        client: The client module that the store needs; None where it needs none.
        extra: The extra of the distribution that installs the client.
    """

    made_by: str
    shape: str
    options: str = ""
    client: str | None = None
    extra: str = ""


STORES: Mapping[str, StoreKind] = {
    "s3": StoreKind(
        made_by="app.storage.s3:S3ArtifactStore",
        shape="s3://bucket or s3://bucket/prefix",
        options="Keys, region and endpoint come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION and "
        "AWS_ENDPOINT_URL, as for every AWS client.",
        client="boto3",
        extra="s3",
    ),
}


def described() -> str:
    """Describe the valid URLs and the stores' other options, for the settings page."""
    options = " ".join(kind.options for kind in STORES.values() if kind.options)
    return f"Object store instead of a folder: {_shapes()}. {options}".rstrip()


def kind_of(url: str) -> StoreKind:
    """Return the kind of store that a URL names.

    Raises:
        ValueError: No kind has the URL's form, or its client is not installed; the message says what would be right.
    """
    scheme, _found, rest = url.partition("://")
    kind = STORES.get(scheme)
    if kind is None or not rest.strip("/"):
        raise ValueError(f"must be {_shapes()}, or empty for a folder")
    if kind.client is not None and find_spec(kind.client) is None:
        raise ValueError(f"an object store needs a client: pip install 'coppice-server[{kind.extra}]'")
    return kind


def _shapes() -> str:
    return " or ".join(kind.shape for kind in STORES.values())
