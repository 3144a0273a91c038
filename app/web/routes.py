"""All pages."""

from __future__ import annotations

from app.web import browse, command_line, jobs, outlook, sign_in, submit, tenants

ROUTERS = (jobs.router, outlook.router, submit.router, browse.router, tenants.router, sign_in.router, command_line.router)
