"""The checks of ``coppice doctor``. Each returns a finding; an exception is a finding too."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from coppice.installation import DISTRIBUTION, NAMESAKE_ADVICE, SERVER, namesake

if TYPE_CHECKING:
    from app.db import Database
    from app.settings import Settings

Status = Literal["ok", "warning", "failed", "skipped"]
# What may fail, and by this name has advice.
Look = Literal[
    "database",
    "migrations",
    "secret",
    "workers",
    "broker",
    "store",
    "uploads",
    "scratch",
    "device",
    "sandbox",
    "signing",
    "sign-in",
]

_LIBRARIES = (SERVER, "torch", "transformers", "celery", "fastapi", "sqlalchemy", "psycopg", "redis", "boto3")
_PROBE_S = 120
_LITTLE_ROOM = 5 * 2**30
_DROP = "COPPICE_SECRET_OLD can go, once receivers of webhooks have their new secrets and 12 hours are over"
_EXPECTED = b"coppice doctor was here"


class Finding(BaseModel):
    """One line of doctor's table."""

    model_config = ConfigDict(frozen=True)

    check: str
    status: Status
    found: str
    advice: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Run the checks one after the other. Whatever they write is deleted again."""
    yield _versions()
    yield from _database(settings)
    yield _guarded("broker", _broker, settings)
    yield _guarded("store", _store, settings)
    yield _guarded("uploads", _uploads, settings)
    yield _guarded("scratch", _scratch, settings)
    yield _guarded("device", _device, settings)
    yield _guarded("sandbox", _sandbox, settings)
    yield _guarded("signing", _signing, settings)
    yield _roots(settings)
    yield _access(settings)
    if settings.signs_people_in:
        yield _guarded("sign-in", _sign_in, settings)


def _guarded(name: Look, check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except Exception as error:  # client libraries have errors of their own, and each is a finding
        return Finding(check=name, status="failed", found=_first_line(error), advice=ADVICE[name])


def _versions() -> Finding:
    found = [f"{DISTRIBUTION} {version(DISTRIBUTION)}", f"Python {platform.python_version()}"]
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if (other := namesake()) is not None:
        found.append(f"{other}, which is not ours and writes the same folder")
        return Finding(check="versions", status="warning", found=", ".join(found), advice=NAMESAKE_ADVICE)
    return Finding(check="versions", status="ok", found=", ".join(found))


def _database(settings: Settings) -> Iterator[Finding]:
    from app.db import Database

    database = Database.of(settings)
    try:
        reached = _guarded("database", lambda own: _reach(own, database), settings)
        yield reached
        if reached.status != "failed":
            yield _guarded("migrations", lambda _: _migrations(database), settings)
            yield _guarded("secret", lambda _: _secret(settings, database), settings)
            yield _guarded("workers", lambda _: _workers(settings, database), settings)
    finally:
        database.close()


def _reach(settings: Settings, database: Database) -> Finding:
    if database.is_sqlite and not Path(database.url.database or "").is_file():
        return Finding(check="database", status="failed", found="there is no database file yet", advice="coppice migrate")
    begun = time.perf_counter()
    database.check()
    with database.write():  # with SQLite, a full or read-only disk refuses it
        pass
    if (wrong := database.room_for(settings.connections_in_all)) is not None:
        return Finding(check="database", status="warning", found=wrong, advice="see the guide docs/guides/scaling.md")
    spent_ms = (time.perf_counter() - begun) * 1000
    return Finding(check="database", status="ok", found=f"{database.url.get_backend_name()}, {spent_ms:.0f} ms")


def _migrations(database: Database) -> Finding:
    from migrations import revisions

    current, newest = revisions(database)
    if current == newest:
        return Finding(check="migrations", status="ok", found=f"at {newest}")
    found = "never migrated" if current is None else f"at {current}, this version needs {newest}"
    return Finding(check="migrations", status="failed", found=found, advice="coppice migrate")


def _secret(settings: Settings, database: Database) -> Finding:
    from app.keys.service import KeyService
    from app.secret import ServerSecret

    if not settings.auth:
        return Finding(check="secret", status="skipped", found="keys are not asked for")
    use = KeyService(database, ServerSecret(settings)).secret_use()
    told = f"{use.keys_under_it} of {use.keys} valid keys are known under it"
    left = use.keys - use.keys_under_it
    if settings.secret_old:
        advice = f"COPPICE_SECRET_OLD is still needed by {left} keys, each until it is used, and by receivers of webhooks"
        return Finding(check="secret", status="warning" if left else "ok", found=told, advice=advice if left else _DROP)
    if left:
        advice = (
            "each is noted when it is used; one that is not accepted was made under a secret that COPPICE_SECRET_OLD can name"
        )
        return Finding(check="secret", status="ok", found=told, advice=advice)
    return Finding(check="secret", status="ok", found=told)


def _workers(settings: Settings, database: Database) -> Finding:
    from app.jobs.statistics import StatisticsRepository

    with database.read() as connection:
        state = StatisticsRepository(connection).queue(seen_within_s=settings.worker_gone_s)
    counts = ", ".join(f"{count} {status}" for status, count in state.jobs.items() if count) or "no jobs"
    found = f"{state.workers} signed in; {counts}"
    if state.expired_leases:
        advice = "a worker's reaper takes them back: is one running?"
        return Finding(
            check="workers", status="warning", found=f"{found}; {state.expired_leases} with an expired lease", advice=advice
        )
    if state.workers == 0:
        return Finding(check="workers", status="warning", found=found, advice="coppice worker, on every host that is to prune")
    return Finding(check="workers", status="ok", found=found)


def _broker(settings: Settings) -> Finding:
    from app import queue
    from app.brokers import TLS, is_verified

    celery = queue.create_celery(settings, socket_timeout_s=2)
    try:
        queue.check(celery)
    except Exception as error:
        told = str(error)
        advice = next((advice for sign, advice in _BROKER_ADVICE.items() if sign in told), ADVICE["broker"])
        return Finding(check="broker", status="failed", found=_first_line(error), advice=advice)
    kind = settings.broker_url.partition("://")[0] or "folder"
    found = f"{kind}, {queue.depth(celery)} messages"
    if kind == TLS and not is_verified(settings.broker_url):
        advice = "take ssl_cert_reqs out of COPPICE_BROKER_URL: docs/guides/tls.md"
        return Finding(check="broker", status="warning", found=f"{found}; its certificate is not verified", advice=advice)
    return Finding(check="broker", status="ok", found=found)


def _store(settings: Settings) -> Finding:
    """Write, read, list and delete one small file, in the folder of a job that does not exist."""
    from app.storage import create_store

    store, folder = create_store(settings), f"jobs/doctor_{uuid4().hex}"
    store.check()
    begun = time.perf_counter()
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(_EXPECTED)
            file.flush()
            store.put(f"{folder}/0/probe", Path(file.name))
        read = b"".join(store.open(f"{folder}/0/probe", 0, len(_EXPECTED)))
        listed = store.keys(folder, after="", limit=1)
    finally:
        store.delete_prefix(folder)
    if read != _EXPECTED or not listed or store.keys(folder, after="", limit=1):
        return Finding(
            check="store", status="failed", found="a test file was not read back, listed and deleted as it was written"
        )
    spent = f"written, read and deleted in {(time.perf_counter() - begun) * 1000:.0f} ms"
    if settings.artifacts_url:
        return Finding(check="store", status="ok", found=f"object store; {spent}")
    return _with_room("store", settings.resolved_artifacts_dir, spent, _LITTLE_ROOM)


def _uploads(settings: Settings) -> Finding:
    return _with_room("uploads", settings.resolved_uploads_dir, "writable", _LITTLE_ROOM)


def _scratch(settings: Settings) -> Finding:
    return _with_room("scratch", settings.resolved_scratch_dir, "writable", max(settings.min_free_bytes, _LITTLE_ROOM))


def _with_room(check: str, folder: Path, found: str, least: int) -> Finding:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(_EXPECTED)
    free = shutil.disk_usage(folder).free
    told = f"{found}; {_size(free)} free"
    if free < least:
        return Finding(check=check, status="warning", found=told, advice=f"make room: less than {_size(least)} is left")
    return Finding(check=check, status="ok", found=told)


def _device(settings: Settings) -> Finding:
    if find_spec("torch") is None:
        return Finding(
            check="device",
            status="skipped",
            found=f"torch is not installed: this host can run the API only; a worker needs {SERVER}[worker]",
        )
    names = dict.fromkeys(settings.resolved_devices)
    found = [_device_called(name) for name in names]
    failed = next((one for one in found if one.status != "ok"), None)
    if failed is not None:
        return failed
    return found[0] if len(found) == 1 else Finding(check="device", status="ok", found="; ".join(one.found for one in found))


def _device_called(name: str) -> Finding:
    """Try one device; "" is the one that torch chooses."""
    from worker.probe import TorchProbe

    command = [sys.executable, "-P", "-m", "worker.probe", *([name] if name else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_S, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return Finding(check="device", status="failed", found=f"torch does not start: {last[0]}", advice=ADVICE["device"])
    probe = TorchProbe.model_validate_json(done.stdout.strip().splitlines()[-1])
    if probe.error:
        return Finding(check="device", status="failed", found=f"torch {probe.torch}: {probe.error}", advice=ADVICE["device"])
    found = f"torch {probe.torch} computes on {probe.device}"
    if probe.memory_free_bytes is not None and probe.memory_bytes is not None:
        found += f" ({probe.name}), {_size(probe.memory_free_bytes)} of {_size(probe.memory_bytes)} free"
    elif not name and shutil.which("nvidia-smi") is not None:
        advice = "torch sees no GPU: install its CUDA build, or set COPPICE_DEVICE=cpu"
        return Finding(check="device", status="warning", found=found, advice=advice)
    return Finding(check="device", status="ok", found=found)


def _sandbox(settings: Settings) -> Finding:
    """Say what this host keeps a job's process from what is not its own with."""
    from app.settings import Sandbox
    from worker.sandbox.host import examine

    host, wanted = examine(), settings.resolved_sandbox
    found = f"{host.described()}; {wanted.value}"
    if wanted is Sandbox.OFF:
        advice = "COPPICE_SANDBOX=preferred confines jobs as far as this host can"
        return Finding(check="sandbox", status="warning" if settings.auth else "ok", found=found, advice=advice)
    if not host.lacks():
        return Finding(check="sandbox", status="ok", found=found)
    status: Status = "failed" if wanted is Sandbox.REQUIRED else "warning"
    return Finding(
        check="sandbox", status=status, found=f"{found}; not from {', nor from '.join(host.lacks())}", advice=ADVICE["sandbox"]
    )


def _signing(settings: Settings) -> Finding:
    """See whether bundles are signed, and by the key that is published. Makes no key."""
    from app.signing import private_key_path, public_key_of, public_keys

    if settings.signing_key is None and not settings.database_url:
        found = "finished bundles are signed with a key of the data folder, which is made when it is first needed"
        return Finding(check="signing", status="ok", found=found)
    published = public_keys(settings)
    if not published:
        advice = "COPPICE_SIGNING_KEY on workers, and COPPICE_SIGNING_PUBLIC_KEYS on API hosts: docs/guides/origin.md"
        return Finding(check="signing", status="warning", found="bundles are not signed", advice=advice)
    told = f"key {published[0].id[:16]} and {len(published) - 1} earlier are published"
    if settings.signing_key is None:
        return Finding(check="signing", status="ok", found=f"{told}; this host cannot sign")
    path = private_key_path(settings)
    assert path is not None
    if public_key_of(path) != published[0]:
        advice = "put the public key of COPPICE_SIGNING_KEY first in COPPICE_SIGNING_PUBLIC_KEYS"
        return Finding(check="signing", status="failed", found=f"{told}, but this host signs with another", advice=advice)
    if path.stat().st_mode & 0o007:
        return Finding(
            check="signing", status="warning", found=f"{told}; everybody here may read it", advice=f"chmod 600 {path}"
        )
    return Finding(check="signing", status="ok", found=f"{told}; this host signs with it")


def _roots(settings: Settings) -> Finding:
    from app.surroundings import unusable_roots

    if not settings.allowed_roots:
        return Finding(
            check="roots", status="skipped", found="no folder is open to jobs; models come from the Hub or as uploads"
        )
    if unusable := unusable_roots(settings):
        advice = "correct COPPICE_ALLOWED_ROOTS, or mount the folder here and on every worker"
        return Finding(check="roots", status="warning", found="; ".join(unusable), advice=advice)
    return Finding(check="roots", status="ok", found=f"jobs may name what is in {', '.join(map(str, settings.allowed_roots))}")


def _access(settings: Settings) -> Finding:
    if settings.auth and not settings.metrics_token.get_secret_value():
        advice = "COPPICE_METRICS_TOKEN opens /metrics to Prometheus"
        return Finding(check="access", status="ok", found="keys are asked for; metrics are closed", advice=advice)
    if settings.auth:
        return Finding(check="access", status="ok", found="keys are asked for, and a token at /metrics")
    advice = "fine behind loopback; else COPPICE_AUTH=true and coppice keys create"
    return Finding(check="access", status="warning" if settings.database_url else "ok", found="open to all", advice=advice)


def _sign_in(settings: Settings) -> Finding:
    from app.people.config import read_config

    config = read_config(settings)
    assert config is not None
    from app.people.problems import ProviderAway
    from app.people.provider import Provider  # its libraries are the server's extra oidc

    provider = Provider(config)
    try:
        keys = len(list(provider.keys()))
    except ProviderAway:
        return Finding(check="sign-in", status="failed", found=provider.reason, advice=ADVICE["sign-in"])
    leaves = "with" if provider.metadata().end_session_endpoint else "without"
    tenants = len({grant.tenant for grant in config.grants})
    found = f"{config.issuer} answers: {keys} keys, {leaves} a sign-out of its own; groups have roles for {tenants} tenants"
    return Finding(check="sign-in", status="ok", found=found)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _first_line(error: Exception) -> str:
    told = (str(getattr(error, "orig", None) or error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {told}"[:300] if told else type(error).__name__


_WHO_ASKS = "the user or the password in COPPICE_BROKER_URL is wrong: redis://USER:PASSWORD@host, percent-encoded"
# By what clients of Redis say.
_BROKER_ADVICE: Mapping[str, str] = {
    "username-password": _WHO_ASKS,
    "Authentication required": _WHO_ASKS,
    "CERTIFICATE_VERIFY_FAILED": "the certificate is not of the authority in ssl_ca_certs, is too old, or names another host",
    "No such file or directory": "a file of ssl_ca_certs, ssl_certfile or ssl_keyfile in COPPICE_BROKER_URL is not here",
    "Connection reset by peer": "does one side speak TLS and the other not? In COPPICE_BROKER_URL rediss:// is with it",
    "WRONG_VERSION_NUMBER": "it speaks no TLS: COPPICE_BROKER_URL must begin with redis://, or Redis needs a tls-port",
}


# Total: a test holds it against the names.
ADVICE: Mapping[Look, str] = {
    "database": "COPPICE_DATABASE_URL: is the server up, and the name and password right?",
    "migrations": "coppice migrate",
    "secret": "COPPICE_SECRET: can the file `secret` of the data folder be read?",
    "workers": "coppice migrate, where the tables are another version's",
    "broker": "COPPICE_BROKER_URL; meanwhile jobs are accepted, and wait",
    "store": "COPPICE_ARTIFACTS_DIR or COPPICE_ARTIFACTS_URL: is it mounted, writable, and are the credentials right?",
    "uploads": "COPPICE_UPLOADS_DIR: is it mounted and writable?",
    "scratch": "COPPICE_SCRATCH_DIR: is it mounted and writable?",
    "sandbox": "install bubblewrap, or run on a kernel with Landlock (Linux 5.13 or later)",
    "signing": "COPPICE_SIGNING_KEY and COPPICE_SIGNING_PUBLIC_KEYS: PEM files that this process may read",
    "sign-in": "COPPICE_OIDC_ISSUER exactly as the provider calls itself, COPPICE_OIDC_ROLES; on the API's hosts alone",
    "device": "COPPICE_DEVICE, COPPICE_DEVICES: cpu, cuda or cuda:0; and the torch build must fit the driver",
}
