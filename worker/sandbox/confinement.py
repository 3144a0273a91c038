"""What a process of a job may touch: written by the supervisor, entered by the process before it reads anything hostile."""

from __future__ import annotations

import resource
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from app.sandbox import kernel, landlock, seccomp


class Confinement(BaseModel):
    """The limits of one process and its children.

    Attributes:
        read: Files and folders that may be read, and run.
        list: Folders whose names may be listed, and nothing more.
        write: Folders that may be written to.
        devices: Device files that may be used.
        network: Whether sockets may be opened.
        links: Whether links may be made where it may write.
        user: User and group to become; None: the supervisor's own.
        namespaces: Whether the process runs in namespaces of bubblewrap's making.
        landlock: Whether the kernel's Landlock is to hold the limits of files.
        call_filter: Whether system calls are to be filtered.
    """

    model_config = ConfigDict(frozen=True)

    read: tuple[Path, ...] = ()
    list: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()
    network: bool = False
    links: bool = False
    user: tuple[int, int] | None = None
    namespaces: bool = False
    landlock: bool = False
    call_filter: bool = False

    def enter(self) -> None:
        """Confine this process, for ever.

        Raises:
            OSError: The kernel refused one of the limits, though the host was found to have it. Nothing may run then.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # a core holds what the process has read
        if not kernel.available():
            return
        if self.user is not None:
            kernel.become(*self.user)
        kernel.renounce_privileges()
        kernel.drop_capabilities()
        if self.landlock:
            landlock.restrict(self._rules(), network=self.network)
        if self.call_filter:
            seccomp.deny_calls(sockets=self.network)

    def _rules(self) -> list[tuple[Path, landlock.Access]]:
        write = landlock.WRITE | (landlock.Access.MAKE_SYM if self.links else landlock.Access(0))
        return [
            *((path, landlock.READ) for path in self.read),
            *((path, landlock.Access.READ_DIR) for path in self.list),
            *((path, write) for path in self.write),
            *((path, landlock.DEVICE) for path in self.devices),
        ]
