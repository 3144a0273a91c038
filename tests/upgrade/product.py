"""What these tests import of the product; all else goes through commands and HTTP. When a module moves, change this."""

from app.db import Database
from coppice.console import show
from migrations import config_for, revisions, upgrade
from pruning_core.artifacts.page import render_page
from pruning_core.report import Report
from pruning_core.spec import PruneSpec

__all__ = ["Database", "PruneSpec", "Report", "config_for", "render_page", "revisions", "show", "upgrade"]
