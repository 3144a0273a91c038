"""Coppice's client: ``from coppice import Client``. Imports neither torch nor a server."""

from coppice.client import Client
from coppice.errors import ApiError, CoppiceError, DownloadCorrupt, FolderTaken, ServiceUnreachable
from coppice.types import Artifact, Job, JobEvent

__all__ = [
    "ApiError",
    "Artifact",
    "Client",
    "CoppiceError",
    "DownloadCorrupt",
    "FolderTaken",
    "Job",
    "JobEvent",
    "ServiceUnreachable",
]
