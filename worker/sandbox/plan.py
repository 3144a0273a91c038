"""The sandbox of one attempt, as its supervisor lays it out: what its processes may touch, and how they are started."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from worker.sandbox import bubblewrap
from worker.sandbox.confinement import Confinement
from worker.sandbox.environment import environment_for
from worker.sandbox.host import Host

# Programs, libraries and their data, none of which is anybody's own; with the kernel's views of itself, which torch reads.
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/os-release",
    # Certificates of authorities, never keys: libraries read them when they are imported, whether they use the network or not.
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/sys",
    "/var/cache/fontconfig",
    "/proc",
)
# What finding and trusting a server on the network needs.
_NETWORK = (
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/nsswitch.conf",
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
_GPUS = ("nvidia*", "kfd", "dri", "dxg")
_TEMPORARY, _EMPTY = "tmp", "empty"  # folders of the attempt: for temporary files, and to begin in
_PACKAGES = ("app", "coppice", "migrations", "pruning_core", "worker")


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a process of an attempt.

    Attributes:
        prefix: What stands before the command.
        environment: Its environment.
        folder: Its working directory, which is empty.
    """

    prefix: tuple[str, ...]
    environment: dict[str, str]
    folder: Path


@dataclass(frozen=True, slots=True)
class AttemptSandbox:
    """The sandbox of one attempt.

    Attributes:
        host: The means that it is made of.
        scratch: The attempt's folder, which its processes may write to.
        user: User and group of its processes; None: the supervisor's own.
        private: Folders and files of the service. Where they lie among programs and libraries, those around them may be read.
    """

    host: Host
    scratch: Path
    user: tuple[int, int] | None = None
    private: tuple[Path, ...] = ()

    def prepare(self, *writable: Path) -> None:
        """Make the folders of its processes, and give them to their user.

        Args:
            writable: Folders besides the attempt's own that they may write to; made where they are missing.
        """
        for folder in (*(self.scratch / name for name in (_TEMPORARY, _EMPTY)), *writable):
            folder.mkdir(parents=True, exist_ok=True)
        if self.user is not None:
            for folder in (self.scratch, *writable):
                _give(folder, self.user)

    def confinement(self, read: Iterable[Path], write: Iterable[Path] = (), *, network: bool = False) -> Confinement:
        """Return what a process of the attempt may touch.

        Args:
            read: Its inputs.
            write: Folders that it may write to, besides the attempt's own.
            network: Whether it may use the network.
        """
        code, listed = _code()
        system = [Path(name) for name in (*_SYSTEM, *(_NETWORK if network else ()))]
        programs = (*_apart(system, self.private), *_apart(code, self.private, whole=True))
        split = [path for path in code if path not in programs]  # Python lists them to find what is in them
        # Without a /dev of its own, the process would see the memory that others share.
        found = [Path("/dev") / name for name in (*_DEVICES, *(("shm",) if self.host.bubblewrap else ()))]
        found += [path for pattern in _GPUS for path in sorted(Path("/dev").glob(pattern))]
        return Confinement(
            read=tuple(path for path in (*programs, *read) if os.path.lexists(path)),
            list=(*listed, *split),
            write=(self.scratch, *write),
            devices=tuple(found),
            network=network,
            links=network,  # the Hub's cache consists of them
            user=self.user,
            namespaces=bool(self.host.bubblewrap),
            landlock=self.host.landlock > 0,
            call_filter=self.host.call_filter,
        )

    def launch(self, confinement: Confinement, credentials: Mapping[str, str] = MappingProxyType({})) -> Launch:
        """Return how to start a process that is to be confined so, with what it needs to sign in elsewhere."""
        folder = self.scratch / _EMPTY
        prefix: Sequence[str] = ()
        if self.host.bubblewrap:
            prefix = bubblewrap.wrapped(self.host.bubblewrap, confinement, folder)
        environment = environment_for(self.scratch / _TEMPORARY, network=confinement.network)
        return Launch(tuple(prefix), environment | dict(credentials), folder)


def user_for(host: Host, user: tuple[int, int] | None, inputs: Sequence[Path]) -> tuple[int, int] | None:
    """Return the user to become, where this process may switch and that user could read what is needed; else None.

    With bubblewrap, what leads to a folder does not count: the folder itself is mounted.
    """
    if user is None or not host.switches_users:
        return None
    code, _listed = _code()
    for path in (*code, *inputs):
        ways = () if host.bubblewrap else path.resolve().parents
        if not all(_is_open_to(way, user) for way in ways):
            return None
    # The files of inputs too: safetensors, for one, writes those that nobody else may read. Code is as open as its top.
    files = (member for folder in inputs for member in _members(folder))
    return user if all(_is_open_to(path, user) for path in (*code, *inputs, *files)) else None


def cache_of(folder: Path, owner: str) -> Path:
    """Return the folder of measurements of one tenant: what a job of another has written is not read."""
    return folder / (hashlib.sha256(owner.encode()).hexdigest()[:16] if owner else "own")


def linked(folder: Path, *, most: int = 10_000) -> tuple[Path, ...]:
    """List what the links in a folder and its subfolders lead to, as caches of the Hub are laid out."""
    found: set[Path] = set()
    for count, (parent, folders, files) in enumerate(os.walk(folder)):
        if count > most:
            break
        found |= {Path(parent, name).resolve() for name in (*folders, *files) if Path(parent, name).is_symlink()}
    return tuple(sorted(path for path in found if not path.is_relative_to(folder)))


@cache
def _code() -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Find the interpreter, its libraries and our packages; and the folders that Python has to list to find the latter."""
    roots = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    roots |= {Path(sysconfig.get_paths()[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    roots |= {Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    packages = {Path(spec.origin).parent for name in _PACKAGES if (spec := importlib.util.find_spec(name)) and spec.origin}
    places = {package.parent for package in packages}  # in an installation made for developing, the whole repository
    roots |= {Path(entry) for entry in sys.path if entry and Path(entry).is_dir() and Path(entry) not in places}
    outside = {path for path in packages if not any(path.is_relative_to(root) for root in roots)}
    return _outermost(roots | outside), _outermost({path.parent for path in outside})


def _apart(paths: Sequence[Path], private: Sequence[Path], *, whole: bool = False) -> list[Path]:
    """Leave out what is private: a folder that holds some is replaced by the rest of what is in it.

    Args:
        paths: Folders and files to be read.
        private: What is private.
        whole: Whether those of the paths that are themselves private stay: nothing runs without them.
    """
    kept: list[Path] = []
    left = list(paths)
    while left:
        path = left.pop()
        own, is_given = path.resolve(), path in paths
        if own in private and not (whole and is_given):
            continue
        if not is_given and any(own.is_relative_to(other) for other in private):  # a link
            continue
        if not any(other != own and other.is_relative_to(own) for other in private):
            kept.append(path)
        elif is_given or not path.is_symlink():
            left += path.iterdir()
    return sorted(kept)


def _outermost(paths: set[Path]) -> tuple[Path, ...]:
    inner = {path for path in paths if any(path != other and path.is_relative_to(other) for other in paths)}
    return tuple(sorted(paths - inner))


def _members(folder: Path) -> Iterator[Path]:
    """List what is in a folder and its subfolders."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def _is_open_to(path: Path, user: tuple[int, int]) -> bool:
    """Whether a user may read a file, or look into a folder, by its mode."""
    try:
        found = path.stat()
    except OSError:
        return True  # what is missing is told by who needs it
    bits = (found.st_mode >> (6 if found.st_uid == user[0] else 3 if found.st_gid == user[1] else 0)) & 7
    wanted = 5 if stat.S_ISDIR(found.st_mode) else 4
    return bits & wanted == wanted


def _give(folder: Path, user: tuple[int, int]) -> None:
    """Give a folder and all in it to a user. Links are given themselves, never what they lead to.

    By descriptors: another job of the tenant may meanwhile put a link where a folder was.
    """
    os.chown(folder, *user, follow_symlinks=False)
    for _parent, folders, files, here in os.fwalk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):  # that job has deleted it
                os.chown(name, *user, dir_fd=here, follow_symlinks=False)
