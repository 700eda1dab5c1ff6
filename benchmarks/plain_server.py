"""What the sandbox is compared with: `python -c` in bubblewrap or firejail, behind FastAPI.

python benchmarks/plain_server.py PORT bwrap|firejail

It runs at most 64 programs at once, which is in its favour: with no bound, some hundreds of them
fill the memory and none ends. Waiting for a place does not count in a program's time.
"""

import asyncio
import os
import shutil
import signal
import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

MOST_AT_ONCE = 64
JAILS = {
    "bwrap": "bwrap --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp --unshare-all"
    " --die-with-parent --new-session --cap-drop ALL",
    "firejail": "firejail --quiet --noprofile --net=none --caps.drop=all --seccomp --private-tmp"
    " --nonewprivs",
}


class Request(BaseModel):
    code: str
    run_timeout: float = 10.0
    language: str = "python"


def create_app(jail: str) -> FastAPI:
    app = FastAPI()
    command = [*JAILS[jail].split(), sys.executable, "-c"]

    places = asyncio.Semaphore(MOST_AT_ONCE)

    @app.post("/run_code")
    async def run_code(request: Request) -> dict[str, object]:
        async with places:
            process = await asyncio.create_subprocess_exec(
                *command,
                request.code,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            try:
                out, err = await asyncio.wait_for(process.communicate(), request.run_timeout)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
                return {"status": "Failed", "run_result": {"status": "TimeLimitExceeded"}}
        result = {"stdout": out.decode(), "stderr": err.decode(), "return_code": process.returncode}
        return {"status": "Failed" if process.returncode else "Success", "run_result": result}

    return app


if __name__ == "__main__":
    port, jail = int(sys.argv[1]), sys.argv[2]
    assert shutil.which(jail)
    uvicorn.run(create_app(jail), port=port, log_level="warning", backlog=4096)
