"""Requests and responses of `/run_code`, as SandboxFusion defines them.

https://bytedance.github.io/SandboxFusion: a program that fails is an answer with status `Failed`;
only a sandbox that fails is a `SandboxError`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from pydantic import BaseModel, Field, field_validator

from ctpo.sandbox import arguments
from ctpo.sandbox.execution import Execution
from ctpo.sandbox.jail.plan import SCRATCH_INODES
from ctpo.sandbox.program import Program

# What a shell reports for a process ended by SIGKILL and SIGXFSZ: clients want a number.
_RETURN_CODES = {"memory": 137, "output-limit": 153}
_MESSAGES = {
    "memory": "the program needed more memory than it may use",
    "output-limit": "the program wrote more than is kept",
}


class RunCodeRequest(BaseModel):
    """What is asked for.

    Attributes:
        code: The program.
        language: `python` is all there is.
        compile_timeout: Accepted; nothing is compiled.
        run_timeout: Seconds of the program's own time.
        memory_limit_MB: Memory in MiB the program may use; -1 for as much as the server allows,
            which also caps it.
        stdin: Standard input.
        files: Contents by relative path, in base64; null ones are left out.
        fetch_files: Relative paths of files whose content is wanted.
    """

    code: str
    language: str = "python"
    compile_timeout: float = 10.0
    run_timeout: float = Field(10.0, gt=0, allow_inf_nan=False)
    memory_limit_MB: int = -1
    stdin: str | None = None
    files: dict[str, str | None] = Field(default_factory=dict, max_length=SCRATCH_INODES)
    fetch_files: list[str] = Field(default_factory=list, max_length=SCRATCH_INODES)

    @field_validator("language")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != "python":
            raise ValueError(f"language must be 'python', not {value!r}")
        return value

    @field_validator("memory_limit_MB")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1 and value != -1:
            raise ValueError(f"memory_limit_MB must be at least 1, or -1 for no own, not {value}")
        return value

    @field_validator("fetch_files")
    @classmethod
    def _collectable(cls, value: list[str]) -> list[str]:
        return list(arguments.names(value, "fetch_files"))

    def program(self, most_mb: int) -> Program:
        """The program, for a sandbox whose programs may add `most_mb` MiB of memory.

        Raises:
            ValueError: A path is not relative, a content is no base64, or they do not fit.
        """
        return Program(
            self.code,
            stdin=self.stdin or "",
            files=self._contents(),
            collect=self.fetch_files,
            timeout=self.run_timeout,
            memory_mb=self.memory_limit_MB if 0 < self.memory_limit_MB < most_mb else None,
        )

    def _contents(self) -> dict[str, bytes]:
        decoded = {}
        for name, content in self.files.items():
            if content is not None:
                try:
                    decoded[name] = base64.b64decode(content, validate=True)
                except binascii.Error as error:
                    raise ValueError(f"files[{name!r}] is no base64: {error}") from None
        return decoded


def response(execution: Execution) -> dict[str, Any]:
    """An outcome as clients expect it."""
    if execution.status == "sandbox-failure":
        return {
            "status": "SandboxError",
            "message": execution.failure,
            "compile_result": None,
            "run_result": None,
            "executor_pod_name": None,
            "files": {},
        }
    timed_out = execution.status == "timeout"
    code = _RETURN_CODES.get(execution.status, execution.return_code)
    return {
        "status": "Success" if execution.status == "success" else "Failed",
        "message": _MESSAGES.get(execution.status, ""),
        "compile_result": None,
        "run_result": {
            "status": "TimeLimitExceeded" if timed_out else "Finished",
            "execution_time": execution.wall_seconds,
            "cpu_time": execution.cpu_seconds,
            "return_code": None if timed_out else code,
            "stdout": execution.stdout,
            "stderr": execution.stderr,
        },
        "executor_pod_name": None,
        "files": {n: base64.b64encode(c).decode() for n, c in execution.files.items()},
    }
