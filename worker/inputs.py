"""Uploads that a job reads: on this host while it runs, and the spec with the places where they are here."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from app.jobs.records import Claim
from app.settings import Settings
from app.uploads.records import is_upload_id, shown_reference
from app.uploads.service import UploadService
from pruning_core.spec.data_places import data_places, with_data


@contextmanager
def uploads_here(claim: Claim, uploads: UploadService, settings: Settings, interrupted: Callable[[], bool]) -> Generator[Claim]:
    """Fetch what a job names of its tenant's uploads, and keep it until the job has ended.

    The API has written its own folders into the spec. Where uploads are in the object store, each host has them elsewhere.

    Raises:
        InterruptedError: ``interrupted`` said so.
    """
    if not settings.keeps_uploads_in_store:
        yield claim
        return
    spec = claim.spec
    with ExitStack() as stack:

        def here(reference: str) -> str:
            upload_id = shown_reference(reference)
            if not is_upload_id(upload_id):
                return reference
            folder = stack.enter_context(uploads.in_use(upload_id, owner=claim.owner, interrupted=interrupted))
            return reference if folder is None else str(folder)

        moved = with_data(spec, {place.param: here(place.reference) for place in data_places(spec)})
        yield replace(claim, spec=moved.model_copy(update={"model": here(spec.model)}))
