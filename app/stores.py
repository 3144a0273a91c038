"""The artifact stores that a URL can name, by its scheme. Without a URL the store is a folder.

Settings check URLs by this table, and `app.storage` builds the store from it: a store is one class and one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class StoreKind:
    """One kind of store.

    Attributes:
        made_by: Its class, as ``module:name``, which takes the URL; imported when a store is built.
        shape: URLs as they should be, for messages and the page of settings.
        options: Where its other options come from, for the page of settings; a sentence.
        client: The module that it needs besides ours; None where it needs none.
        extra: The extra of the distribution that installs that module.
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
    """Describe the URLs that there are stores for."""
    options = " ".join(kind.options for kind in STORES.values() if kind.options)
    return f"Object store instead of a folder: {_shapes()}. {options}".rstrip()


def kind_of(url: str) -> StoreKind:
    """Find the kind of store that a URL names.

    Raises:
        ValueError: There is none, or what it needs is not installed; the message says what would be right.
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
