"""All pages."""

from __future__ import annotations

from app.web import jobs, sign_in, submit, tenants

ROUTERS = (jobs.router, submit.router, tenants.router, sign_in.router)
