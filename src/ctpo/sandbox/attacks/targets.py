"""What attacks aim at, all of it harmless and on this machine, and the evidence of success."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

_HOST = "127.0.0.1"
_DAEMON_SECONDS = 2.0
_LOOK_SECONDS = 0.05


class Targets:
    """Sockets, files and a process for attacks to reach. To be entered before the sandbox starts.

    Attributes:
        secret: A word that nobody in the sandbox should get to know. It is in a file everybody may
            read and in this process's environment.
        target: What an attacker is told.
    """

    def __init__(self) -> None:
        self.secret = "secret-" + secrets.token_hex(8)
        self.target: dict[str, Any] = {}
        self._nonce = ""
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        enter = self._resources.enter_context
        self._directory = Path(tempfile.mkdtemp(prefix="ctpo-targets-"))
        self._resources.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._directory.chmod(0o755)
        self._secret_file = self._directory / "secret"
        self._secret_file.write_text(self.secret)
        self._secret_file.chmod(0o644)
        self._open = self._directory / "open"
        self._open.mkdir()
        self._open.chmod(0o777)
        os.environ["CTPO_TARGETS_SECRET"] = self.secret
        self._resources.callback(os.environ.pop, "CTPO_TARGETS_SECRET", None)
        self._tcp = enter(socket.create_server((_HOST, 0)))
        self._udp = enter(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind((_HOST, 0))
        abstract = "ctpo-targets-" + secrets.token_hex(8)
        self._abstract = enter(socket.socket(socket.AF_UNIX))
        self._abstract.bind("\0" + abstract)
        self._abstract_datagram = enter(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self._abstract_datagram.bind("\0" + abstract + "-d")
        self._file = enter(socket.socket(socket.AF_UNIX))
        self._file.bind(str(self._directory / "socket"))
        (self._directory / "socket").chmod(0o777)
        for server in (self._abstract, self._file):
            server.listen()
        for each in (self._tcp, self._udp, self._abstract, self._abstract_datagram, self._file):
            each.setblocking(False)
        self._victim = self._new_victim()
        self._resources.callback(self._end_victim)
        self.target = {
            "host": _HOST,
            "tcp": self._tcp.getsockname()[1],
            "udp": self._udp.getsockname()[1],
            "abstract": abstract,
            "abstract_datagram": abstract + "-d",
            "socket_path": str(self._directory / "socket"),
            "secret": str(self._secret_file),
            "open_directory": str(self._open),
            "caller": os.getpid(),
            "victim": self._victim.pid,
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def expect(self, nonce: str) -> None:
        """Forget what was seen, and look for what one attack does.

        Args:
            nonce: The word by which it is known.
        """
        self._nonce = nonce
        self.evidence(patient=False)
        self._nonce = nonce

    def evidence(self, *, patient: bool = True) -> str:
        """What of the attack can be seen from outside, in words; empty if nothing.

        Args:
            patient: Whether to look for a process that stays for a while.
        """
        seen = []
        for name, server in (
            ("TCP", self._tcp),
            ("abstract", self._abstract),
            ("file", self._file),
        ):
            with contextlib.suppress(BlockingIOError):
                server.accept()[0].close()
                seen.append(f"a connection to the {name} socket")
        for name, receiver in (("UDP", self._udp), ("abstract", self._abstract_datagram)):
            with contextlib.suppress(BlockingIOError):
                receiver.recv(100)
                seen.append(f"a packet to the {name} socket")
        if (self._open / self._nonce).exists():
            (self._open / self._nonce).unlink()
            seen.append("a file in the open directory")
        if self._secret_file.read_text() != self.secret:
            seen.append("the secret file was changed")
        if not self._victim_answers():
            seen.append("the victim is dead or stopped")
            self._end_victim()
            self._victim = self._new_victim()
            self.target["victim"] = self._victim.pid
        if patient and self._daemon():
            seen.append("a process that outlives the run")
        return "; ".join(seen)

    def _daemon(self) -> bool:
        """Whether a process named after the attack stays, as it does for some seconds."""
        name = self._nonce[:15]
        if not _named(name):
            return False
        time.sleep(_DAEMON_SECONDS)  # a run's processes are ended soon after it
        return _named(name)

    def _new_victim(self) -> subprocess.Popen[bytes]:
        code = "import os\nwhile data := os.read(0, 1): os.write(1, data)"
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def _victim_answers(self) -> bool:
        """Whether the victim still does what it is asked to, and was not stopped.

        It is asked, and not looked at: one that was sent a signal may need a while to die of it,
        but dies before it gives another answer.
        """
        assert self._victim.stdin is not None and self._victim.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._victim.stdin.write(b"?")
            while not select.select([self._victim.stdout], [], [], _LOOK_SECONDS)[0]:
                state = Path(f"/proc/{self._victim.pid}/stat").read_text().rpartition(")")[2]
                if state.split()[0] in "Tt":
                    return False
            return bool(self._victim.stdout.read(1))
        return False

    def _end_victim(self) -> None:
        self._victim.kill()
        self._victim.communicate()


def _named(name: str) -> bool:
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().strip() == name:
                return True
    return False
