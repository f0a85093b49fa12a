"""Starts child processes, each in its own session, that never outlive this process, however it ends.

`python -m mlaas.local.watchdog FD` is the other half: a small process that holds the reading end of a pipe. When the
writing end closes, because the owner closed it or was killed with -9, it ends every process group it was told about.
Unlike Linux's PR_SET_PDEATHSIG this works on any Unix, whichever thread started the child, and for the children's children.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Watchdog", "end"]


class Watchdog:
    """A context in which `spawn` starts processes; `held` are descriptors (locks) that stay open until the last child has ended."""

    def __init__(self, *held: int) -> None:
        reading, self._writing = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "mlaas.local.watchdog", str(reading)],
            pass_fds=(reading, *held),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        os.close(reading)

    def spawn(
        self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `command` with its output appended to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603 -- a manifest's command
                command, env=env, cwd=cwd, start_new_session=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._tell(f"+{child.pid}")
        return child

    def end(self, child: subprocess.Popen[bytes], grace: float = 5.0) -> None:
        """End `child` and its children: SIGTERM, and SIGKILL after `grace` seconds."""
        if child.poll() is None:
            _signal(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace)
        _signal(child.pid, signal.SIGKILL)
        child.wait()
        self._tell(f"-{child.pid}")

    def close(self) -> None:
        """End what is still running and the watchdog itself."""
        os.close(self._writing)
        self._process.wait()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._writing, f"{line}\n".encode())


def end(groups: set[int], grace: float) -> None:
    """End process groups: SIGTERM, and SIGKILL for those that are left after `grace` seconds."""
    deadline = time.monotonic() + grace
    for group in groups:
        _signal(group, signal.SIGTERM)
    while any(_signal(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _watch(descriptor: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    with os.fdopen(descriptor) as lines:
        for line in lines:
            (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    end(groups, grace=5.0)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
