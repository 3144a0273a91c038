"""The processes of one attempt, ready to start: what each may touch, its request, and how it is started."""

from __future__ import annotations

import os
from pathlib import Path

from app.jobs.records import Claim, is_calibration
from app.settings import Sandbox, Settings
from app.uploads.records import shown_reference
from pruning_core.engines.registry import engines_folder, readable_places
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.files.hub import Source
from pruning_core.files.paths import is_local
from pruning_core.spec.data_places import data_places
from pruning_core.spec.prune import PruneSpec
from worker.kept import statistics_of
from worker.protocol import ChildRequest, FetchRequest, Scratch
from worker.sandbox.host import chosen, examine
from worker.sandbox.plan import AttemptSandbox, Launch, cache_of, linked, user_for

_TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable
_ANONYMOUS = "anonymous"


class Launching:
    """The processes of one attempt.

    Args:
        settings: Of the service.
        claim: The claim of the job.
        scratch: The files of the attempt.
        notes: What the report is to warn of.
    """

    def __init__(self, settings: Settings, claim: Claim, scratch: Scratch, notes: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._claim = claim
        self._scratch = scratch
        self._notes = notes
        self._host = chosen(settings, examine())
        self._sources = _sources(settings, claim.spec)
        self._is_off = settings.resolved_sandbox is Sandbox.OFF
        self._hub = hub_cache(settings, claim.owner) if self._sources else None

    def fetch(self) -> Launch | None:
        """Write the request of the process that fetches from the Hub. Return how it is started, or None if nothing is fetched.

        It stays the supervisor's user, who keeps the Hub's cache.
        """
        if self._hub is None:
            return None
        sandbox = AttemptSandbox(self._host, self._scratch.folder, private=_private(self._settings))
        sandbox.prepare(self._hub)
        limits = sandbox.confinement((), (self._hub,), network=True)
        confinement = None if self._is_off else limits
        request = FetchRequest(sources=self._sources, hub_cache=self._hub, confinement=confinement)
        self._scratch.fetch.write_text(request.model_dump_json(), encoding="utf-8")
        return sandbox.launch(limits, _credentials(self._settings, self._claim.owner))

    def job(self) -> Launch:
        """Write the request of the job's process, and return how it is started. Call this once everything is fetched.

        Raises:
            PruningError: A folder that was allowed at submit now leads elsewhere.
        """
        settings, spec = self._settings, self._claim.spec
        inputs = (*_inputs(settings, spec), *([] if self._hub is None else [self._hub]))
        measurements = cache_of(settings.data_dir.resolve() / "cache", self._claim.owner)
        kept = statistics_of(settings, self._claim, self._scratch.folder)
        writable = (measurements, *(() if kept is None else (kept,)))
        user = user_for(self._host, settings.resolved_job_user, inputs)
        sandbox = AttemptSandbox(self._host, self._scratch.folder, user, _private(settings))
        engines = engines_folder(settings.engines_dir) if _runs_engines(spec) else None
        programs = () if engines is None else readable_places(engines)
        limits = sandbox.confinement((*inputs, *programs), writable)
        request = ChildRequest(
            spec=spec,
            device=settings.device or None,
            threads=settings.threads,
            cache=measurements,
            statistics=kept,
            statistics_bytes=settings.statistics_bytes or None,
            notes=self._notes,
            calibrates=is_calibration(self._claim.job_id),
            hub_cache=self._hub,
            engines=engines,
            memory_bytes=settings.job_memory_bytes,
            name=self._claim.name,
            model_name=shown_reference(spec.model),
            confinement=None if self._is_off else limits,
        )
        self._scratch.request.write_text(request.model_dump_json(), encoding="utf-8")
        sandbox.prepare(*writable)
        return sandbox.launch(limits)


def _runs_engines(spec: PruneSpec) -> bool:
    """Whether a job runs engines: in its proof, or llama.cpp, which quantises and proves GGUF files."""
    return bool(spec.artifacts.engines) or "gguf" in spec.artifacts.formats


def _inputs(settings: Settings, spec: PruneSpec) -> tuple[Path, ...]:
    """List the folders that a job reads, and what links in them lead to.

    They were confined at submit. Whoever may write to an allowed folder may have changed it since.
    """
    found: list[Path] = []
    data = [(own.param, own.reference, DatasetInvalid) for own in data_places(spec)]
    for param, reference, refusal in (("model", spec.model, ModelUnreadable), *data):
        if not is_local(reference):
            continue
        folder = Path(reference)
        leads_to = linked(folder)
        roots = [folder, *(root.resolve() for root in settings.allowed_roots), settings.resolved_uploads_dir]
        if folder.resolve() != folder or not all(any(path.is_relative_to(root) for root in roots) for path in leads_to):
            raise refusal("the folder, or a link in it, leads elsewhere than when the job was submitted", param=param)
        found += [folder, *leads_to]
    return tuple(found)


def _sources(settings: Settings, spec: PruneSpec) -> tuple[Source, ...]:
    most = settings.hub_max_bytes
    found: list[Source] = []
    if not is_local(spec.model):
        found.append(Source("model", spec.model, spec.revision, most_bytes=most))
    found += [
        Source("dataset", own.reference, own.revision, own.config, most)
        for own in data_places(spec)
        if not own.here and not is_local(own.reference)
    ]
    return tuple(dict.fromkeys(found))


def hub_cache(settings: Settings, owner: str) -> Path:
    """Return the Hub's cache for a tenant. What the worker's token has fetched is not for those who may not use it."""
    cache = Path(os.environ.get("HF_HUB_CACHE") or _hub_home() / "hub").expanduser().absolute()
    return cache if may_use_token(settings, owner) else cache.with_name(f"{cache.name}-{_ANONYMOUS}")


def may_use_token(settings: Settings, owner: str) -> bool:
    """Return whether a tenant's jobs fetch from the Hub with the worker's token."""
    return not settings.auth or "*" in settings.hub_token_tenants or owner in settings.hub_token_tenants


def _credentials(settings: Settings, owner: str) -> dict[str, str]:
    token = _token() if may_use_token(settings, owner) else ""
    return {_TOKEN: token} if token else {}


def _token() -> str:
    """Return the worker's token for the Hub: of the environment, or of the file that ``hf auth login`` writes."""
    if given := os.environ.get(_TOKEN) or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return given
    path = Path(os.environ.get("HF_TOKEN_PATH") or _hub_home() / "token").expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _private(settings: Settings) -> tuple[Path, ...]:
    """List the files of the service and of its tenants: a job reads of them what is its own, wherever they lie."""
    folders = (
        settings.data_dir,
        settings.resolved_artifacts_dir,
        settings.resolved_uploads_dir,
        settings.resolved_scratch_dir,
        *settings.allowed_roots,
        *([] if settings.signing_key is None else [settings.signing_key]),
        _hub_home(),
    )
    return tuple(dict.fromkeys(folder.expanduser().resolve() for folder in folders))


def _hub_home() -> Path:
    """Return the folder where the Hub's libraries keep their files, by their own rules."""
    return Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")).expanduser()
