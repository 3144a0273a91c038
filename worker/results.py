"""What a job's process has made, ready to be stored: a bundle with its report and signature, or the pieces of a calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.jobs.leases import LeaseRepository
from app.jobs.records import Claim, is_calibration
from app.jobs.states import JobStatus
from app.settings import Settings
from app.storage import StoredArtifact
from pruning_core.report.report import Report
from pruning_core.report.statistics import StatisticsReport
from worker.protocol import Scratch
from worker.signing import BundleSigner

# Ends the job with the stored files.
End = Callable[[LeaseRepository, Sequence[StoredArtifact]], JobStatus | None]


def ending_of(claim: Claim, scratch: Scratch, settings: Settings, signer: BundleSigner, *, started: float) -> End:
    """Make a success ready to be stored, and return what ends the job with the stored files."""
    keep_s, told = settings.artifacts_keep_s, scratch.read(scratch.report)
    if is_calibration(claim.job_id):
        found = StatisticsReport.model_validate_json(told)
        return lambda leases, files: leases.keep(
            claim.job_id, claim.fence, found=found, pieces=files, most_bytes=settings.calibrations_bytes, keep_s=keep_s
        )
    report = Report.model_validate_json(told)
    signer.sign(scratch.bundle, claim, started=started)
    return lambda leases, files: leases.succeed(claim.job_id, claim.fence, report=report, artifacts=files, keep_s=keep_s)
