"""The Python client of a Coppice service: ``from coppice import Client``. Importing it loads neither torch nor a server."""

from coppice.async_client import AsyncClient, AsyncJobHandle
from coppice.client import Client, JobHandle
from coppice.errors import ApiError, CoppiceError, DownloadCorrupt, FolderTaken, JobUnsuccessful, ServiceUnreachable
from coppice.types import Artifact, Job, JobEvent, JobPrediction, Upload

# The name that earlier releases had for it.
Plan = JobPrediction

__all__ = [
    "ApiError",
    "Artifact",
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "CoppiceError",
    "DownloadCorrupt",
    "FolderTaken",
    "Job",
    "JobEvent",
    "JobHandle",
    "JobPrediction",
    "JobUnsuccessful",
    "Plan",
    "ServiceUnreachable",
    "Upload",
]
