"""What jobs keep of dense models on this host: a folder for each tenant, within a budget, gone with the tenant."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from app.jobs.records import Claim
from app.settings import Settings
from app.tenants.records import Deletion
from pruning_core.kept.room import PARTIAL, SUFFIX, make_room
from worker.sandbox.plan import cache_of
from worker.scratch import delete_tree


def statistics_of(settings: Settings, claim: Claim, scratch: Path) -> Path | None:
    """Return where a job finds statistics: in its tenant's folder; in its own where this host keeps none, and it names some."""
    kept = KeptRoom(settings).folder_of(claim.owner)
    return scratch / "statistics" if kept is None and claim.calibration is not None else kept


class KeptRoom:
    """The folders of all tenants."""

    def __init__(self, settings: Settings) -> None:
        """Note where they are and how large each may become."""
        self._root = settings.data_dir.resolve() / "statistics"
        self._most, self._shared = settings.statistics_bytes, settings.statistics_shared

    def folder_of(self, owner: str) -> Path | None:
        """Return the folder of a tenant's jobs, which need not exist; None where nothing is to be kept."""
        return cache_of(self._root, "" if self._shared else owner) if self._most else None

    def sweep(self, deletions: Iterable[Deletion]) -> None:
        """Delete the folders of deleted tenants, and bring the others within the budget, whatever a job has put there.

        Args:
            deletions: Tenants that are being deleted, or were.
        """
        if not self._root.is_dir():
            return
        for deletion in deletions:
            folder = cache_of(self._root, deletion.owner)
            ended = deletion.finished_at
            # A tenant of the same name may have come after.
            if folder.is_dir() and (ended is None or folder.stat().st_ctime <= ended):
                delete_tree(folder)
        for folder in self._root.iterdir():
            if folder.is_symlink() or not folder.is_dir():
                delete_tree(folder)
                continue
            for path in folder.iterdir():
                if path.is_symlink() or not path.is_file() or path.suffix not in (SUFFIX, PARTIAL):
                    delete_tree(path)
            make_room(folder, self._most)
