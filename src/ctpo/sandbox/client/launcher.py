"""The caller's side of the zygote: start it, ask it for fork servers, end it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ctpo.sandbox import wire
from ctpo.sandbox.protections import SandboxUnavailable

# Imports of large packages on a busy machine take long; a worker does not.
_START_SECONDS = 120.0
_ANSWER_SECONDS = 30.0
# What programs left in directories of the host's is deleted then.
_END_SECONDS = 120.0
_NOTES_BYTES = 2000

# Only what the zygote needs: the package's own `__init__` imports the caller's side with asyncio,
# and every page of that would be mapped in every child. The package need not be on sys.path either,
# where programs would see its neighbours.
_BOOT = """
import sys, types
for name, path in zip(("ctpo", "ctpo.sandbox"), sys.argv[1:3]):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from ctpo.sandbox.server.zygote import main
main(int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
"""
_SOURCE = Path(__file__).resolve().parents[1]
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",
    # One program, one processor; and threads in the zygote would not survive the fork.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    # What a library looks up on first use, every program would look up again.
    "LD_BIND_NOW": "1",
    # Every arena reserves 64 MB of the address space that is limited.
    "MALLOC_ARENA_MAX": "2",
}


class LauncherGone(Exception):
    """The server process ended or does not answer; the message says what is known."""


class Launcher:
    """A running zygote.

    Args:
        preload: Modules to import before forking.
        environment: Whether its environment is ours alone; false lets the caller's through.

    Raises:
        SandboxUnavailable: It did not start, or a module could not be imported.
    """

    def __init__(self, preload: Sequence[str], *, environment: bool = True) -> None:
        ours, theirs = wire.pair()
        self._connection = ours
        self._notes = open(os.memfd_create("ctpo-sandbox-stderr", os.MFD_CLOEXEC), "rb")
        with theirs:
            arguments = [
                str(_SOURCE.parent),
                str(_SOURCE),
                str(theirs.fileno()),
                str(os.getpid()),
                ",".join(preload),
            ]
            try:
                self._process = subprocess.Popen(
                    # As -I, but the hash seed in the environment (which is all ours) counts.
                    [sys.executable, "-s", "-P", "-c", _BOOT, *arguments],
                    env=({} if environment else dict(os.environ)) | _ENVIRONMENT | _library_path(),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._notes,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                self._notes.close()
                raise SandboxUnavailable(f"cannot start {sys.executable}: {error}") from error
        try:
            self._connection.settimeout(_START_SECONDS)
            answer, _ = wire.receive(self._connection)
            self._connection.settimeout(_ANSWER_SECONDS)
        except (OSError, EOFError, ValueError) as error:
            notes = self.notes()
            self.close()
            raise SandboxUnavailable(
                f"the sandbox's server did not start: {error}{notes}"
            ) from None
        if "error" in answer:
            self.close()
            raise SandboxUnavailable(str(answer["error"]))

    @property
    def pid(self) -> int:
        """The zygote's process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def notes(self) -> str:
        """The end of what it wrote to stderr, on lines of its own."""
        # Not read(): the position in the file is shared with the server, which writes there.
        notes = self._notes.fileno()
        text = os.pread(notes, _NOTES_BYTES, max(0, os.fstat(notes).st_size - _NOTES_BYTES))
        return "\n" + text.decode(errors="replace") if text else ""

    def new_fork_server(self, request: wire.Header) -> tuple[socket.socket, wire.Header]:
        """A fork server in the place of the one of the same number, and what is in force there.

        Raises:
            OSError: It could not be set up; the message names the step.
            LauncherGone: Nothing answered.
        """
        try:
            wire.send(self._connection, request)
            answer, descriptors = wire.receive(self._connection)
        except (OSError, EOFError, ValueError) as error:
            raise LauncherGone(f"the sandbox's server is gone: {error}{self.notes()}") from None
        if "error" in answer:
            raise OSError(str(answer["error"]))
        (descriptor,) = descriptors
        link = socket.socket(fileno=descriptor)
        try:
            link.settimeout(_ANSWER_SECONDS)
            hello, _ = wire.receive(link)
        except (OSError, EOFError, ValueError) as error:
            link.close()
            raise LauncherGone(f"a fork server did not start: {error}{self.notes()}") from None
        if "error" in hello:
            link.close()
            raise OSError(str(hello["error"]))
        return link, hello

    def close(self) -> None:
        """End it, its fork servers and their programs; returns when they are gone."""
        try:
            # Not just close: a fork of the caller may hold a duplicate.
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # Its side is closed already. The rest is the same.
            self._connection.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._connection.close()
        self._notes.close()


def _library_path() -> dict[str, str]:
    """Where the interpreter itself may need its libraries from."""
    value = os.environ.get("LD_LIBRARY_PATH")
    return {} if value is None else {"LD_LIBRARY_PATH": value}
