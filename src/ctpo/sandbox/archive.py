"""Files on their way into a scratch directory and out of it, as one string of bytes."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

_LENGTH = struct.Struct("!I")
_LONGEST_PART = 255
_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_name(name: str) -> str:
    """The name, if it is a relative path that stays where it is.

    Raises:
        TypeError: It is no string.
        ValueError: It is absolute, empty, too long, or has parts such as `..`.
    """
    if not isinstance(name, str):
        raise TypeError(f"files are named by str, not {type(name).__name__}")
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or len(name) > 1024:
        raise ValueError(f"files are named by a relative path without '..', not {name!r}")
    if any(len(os.fsencode(part)) > _LONGEST_PART for part in parts):
        raise ValueError(f"parts of a path have at most {_LONGEST_PART} bytes, not as in {name!r}")
    return name


def pack(files: Mapping[str, bytes]) -> bytes:
    """The files as one string."""
    index = json.dumps([[name, len(content)] for name, content in files.items()]).encode()
    return b"".join([_LENGTH.pack(len(index)), index, *files.values()])


def unpack(archive: bytes) -> dict[str, bytes]:
    """The files of a string that `pack` made.

    Raises:
        ValueError: It did not make this one.
    """
    try:
        (length,) = _LENGTH.unpack_from(archive)
        start = _LENGTH.size + length
        files = {}
        for name, size in json.loads(archive[_LENGTH.size : start]):
            files[check_name(name)] = archive[start : start + size]
            start += max(size, 0)
    except (struct.error, TypeError, RecursionError) as error:
        raise ValueError(f"no archive of files: {error}") from None
    if start != len(archive):
        raise ValueError(f"an archive of {len(archive)} bytes that should have {start}")
    return files


def write(files: Mapping[str, bytes]) -> None:
    """Write the files below the current directory."""
    for name, content in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(content)


def collect(directory: str, names: Sequence[str], most_bytes: int) -> dict[str, bytes]:
    """Read files that a program may have left, trusting nothing it did to them.

    Args:
        directory: Where they are. It is the program's: links in it are not followed.
        names: Which, as relative paths.
        most_bytes: Room for all of them; those beyond are left out.
    """
    found: dict[str, bytes] = {}
    for name in names:
        with contextlib.suppress(OSError):
            content = _read(directory, PurePosixPath(name).parts, most_bytes)
            if content is not None:
                found[name] = content
                most_bytes -= len(content)
    return found


def _read(directory: str, parts: Sequence[str], most_bytes: int) -> bytes | None:
    opened = [os.open(directory, _DIRECTORY)]
    try:
        for part in parts[:-1]:
            opened.append(os.open(part, _DIRECTORY, dir_fd=opened[-1]))
        opened.append(os.open(parts[-1], _REGULAR, dir_fd=opened[-1]))
        if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
            return None
        with open(opened[-1], "rb", closefd=False) as file:
            content = file.read(most_bytes + 1)
        return content if len(content) <= most_bytes else None
    finally:
        for descriptor in opened:
            os.close(descriptor)
