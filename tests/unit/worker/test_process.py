"""What processes of one worker share."""

from __future__ import annotations

import os

from worker.flag import SharedFlag


def test_a_flag_that_is_set_here_is_seen_in_a_process_forked_before() -> None:
    flag = SharedFlag()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)  # ends when the parent has set the flag
        os._exit(7 if flag.is_set() else 1)
    os.close(reader)
    assert not flag.is_set()
    flag.set()
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert flag.is_set()
