"""What a caller asks for: a program with its inputs and limits, checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, cast

from ctpo.sandbox import arguments


class Options(TypedDict, total=False):
    """The fields of a `Program` but its code, as keyword arguments."""

    stdin: str
    files: Mapping[str, bytes | str] | None
    collect: Sequence[str]
    timeout: float | None
    memory_mb: int | None
    seed: int


@dataclass(frozen=True)
class Program:
    """A program to run.

    Attributes:
        code: Python source, run as `__main__`.
        stdin: Its standard input.
        files: What is in its working directory, by relative path.
        collect: Relative paths of files whose content is wanted afterwards, 16 MiB together.
        timeout: Seconds of its own time; the sandbox's by default.
        memory_mb: Address space in MiB that it may add; at most, and by default, the sandbox's.
        seed: For the random numbers of Python, numpy and sympy.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: `timeout` is not a positive finite number, `memory_mb` is below 1, `seed` has
            more than 32 bits, a path is not relative, or the files are too many or too large.
    """

    code: str
    stdin: str = ""
    files: Mapping[str, bytes | str] | None = field(default=None, hash=False)
    collect: Sequence[str] = ()
    timeout: float | None = None
    memory_mb: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        arguments.check_text("code", self.code)
        arguments.check_text("stdin", self.stdin)
        object.__setattr__(self, "files", arguments.files(self.files))
        object.__setattr__(self, "collect", arguments.names(self.collect))
        if self.timeout is not None:
            arguments.seconds(self.timeout)
        if self.memory_mb is not None:
            arguments.check_count("memory_mb", self.memory_mb)
        arguments.check_seed(self.seed)

    @property
    def contents(self) -> Mapping[str, bytes]:
        """The files, as bytes."""
        return cast("Mapping[str, bytes]", self.files)

    @classmethod
    def of(cls, code: str | Program, options: Options) -> Program:
        """A program as it is, or one made of its code and the other fields.

        Raises:
            TypeError: There is a program and options, or an option is none; else as the class.
            ValueError: As the class.
        """
        if isinstance(code, Program):
            if options:
                raise TypeError(f"a Program has its own {', '.join(options)}")
            return code
        return cls(code, **options)
