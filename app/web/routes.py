"""All pages."""

from __future__ import annotations

from app.web import jobs, sign_in, submit

ROUTERS = (jobs.router, submit.router, sign_in.router)
