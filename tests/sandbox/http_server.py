"""A server of the real thing, and the plainest client of it."""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.waiting import PATIENCE


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, headers=None):
        """Status and body of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            chunked = "transfer-encoding" in (headers or {})
            connection.request(method, path, body, headers or {}, encode_chunked=chunked)
            response = connection.getresponse()
            return response.status, response.read()

    def run(self, code, **fields):
        body = json.dumps({"code": code, "language": "python", **fields})
        status, answer = self.ask("POST", "/run_code", body)
        assert status == 200, (status, answer)
        return json.loads(answer)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def quiet_port() -> int:
    """A free port that nobody is given unasked, so that it stays free between two servers."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def serving(
    *options: str,
    token: str | None = None,
    first: Callable[[], object] | None = None,
    **variables: str,
) -> Iterator[Server]:
    """A server; its process calls `first` before it becomes one."""
    # -P: as the installed command, which takes no module from where it is started.
    command = [sys.executable, "-P", "-c", "from ctpo.cli import main; main()", "sandbox", "serve"]
    environment = {**os.environ, "COLUMNS": "300", **variables}
    if token is not None:
        environment["CTPO_SANDBOX_TOKEN"] = token
    with subprocess.Popen(
        [*command, "--port", "0", "--preload", "", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=first,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"listening at http://.+:(\d+)$", line):
                    break
            else:
                raise AssertionError("it did not start")
            yield Server(process, int(found[1]))
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(PATIENCE)
