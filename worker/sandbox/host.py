"""What this host offers to confine a job's process with. Never imports torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import assert_never

from app.sandbox import kernel, landlock, seccomp
from app.settings import Sandbox, Settings

_PROBE_S = 10


class SandboxMissing(Exception):
    """The settings ask for a sandbox that this host cannot give; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class Host:
    """The means of one host.

    Attributes:
        bubblewrap: Path of bubblewrap, where it is installed and the host lets it make namespaces; else empty.
        landlock: Version of Landlock; 0: none.
        call_filter: Whether system calls can be filtered.
        switches_users: Whether this process may become another user.
    """

    bubblewrap: str = ""
    landlock: int = 0
    call_filter: bool = False
    switches_users: bool = False

    @property
    def confines_files(self) -> bool:
        """Whether a process can be kept from files that are not its own."""
        return bool(self.bubblewrap) or self.landlock > 0

    @property
    def confines_network(self) -> bool:
        """Whether a process can be kept from the network."""
        return bool(self.bubblewrap) or self.call_filter

    def lacks(self) -> tuple[str, ...]:
        """Say what a process cannot be kept from here."""
        return (
            *(() if self.confines_files else ("files: neither bubblewrap nor Landlock works",)),
            *(() if self.confines_network else ("the network: neither bubblewrap nor a filter of system calls works",)),
        )

    def described(self) -> str:
        """List the means, for people."""
        found = [
            *(["namespaces (bubblewrap)"] if self.bubblewrap else []),
            *([f"Landlock {self.landlock}"] if self.landlock else []),
            *(["a filter of system calls"] if self.call_filter else []),
            *(["a user of its own"] if self.switches_users else []),
        ]
        return ", ".join(found) or "nothing"


@cache
def examine() -> Host:
    """Try what this host offers, once a process."""
    if not kernel.available():
        return Host()
    program = shutil.which("bwrap") or ""
    works = bool(program) and _makes_namespaces(program)
    return Host(program if works else "", landlock.version(), seccomp.available(), os.geteuid() == 0)


def require(settings: Settings, host: Host) -> None:
    """Check that this host can give the sandbox that the settings ask for.

    Raises:
        SandboxMissing: It cannot.
    """
    if settings.resolved_sandbox is Sandbox.REQUIRED and host.lacks():
        raise SandboxMissing(
            f"jobs cannot be kept from {'; nor from '.join(host.lacks())}. Install bubblewrap, or run on a Linux kernel "
            "of 5.13 or later with Landlock; COPPICE_SANDBOX=preferred runs jobs all the same, which is for people who trust "
            "every model and data set that they prune"
        )


def chosen(settings: Settings, host: Host) -> Host:
    """Return the means that a job is confined with here: none where the sandbox is switched off."""
    match settings.resolved_sandbox:
        case Sandbox.REQUIRED | Sandbox.PREFERRED:
            return host
        case Sandbox.OFF:
            return Host()
        case Sandbox.AUTO:
            raise AssertionError("auto is resolved by the settings")
        case _ as never:
            assert_never(never)


def _makes_namespaces(program: str) -> bool:
    """Try it: containers and some distributions close namespaces to ordinary users."""
    command = [program, "--unshare-net", "--unshare-pid", "--unshare-ipc", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
