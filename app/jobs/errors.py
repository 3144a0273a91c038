"""What can be wrong with a request for a job; the tree is the same for keys, uploads and webhooks."""

from __future__ import annotations

from app.refusals import Conflict, NotFound, QuotaExceeded, Refused, RequestError

__all__ = ["Conflict", "NotFound", "QuotaExceeded", "Refused", "RequestError"]
