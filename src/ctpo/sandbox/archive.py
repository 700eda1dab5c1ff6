"""Files on their way into a scratch directory and out of it, as one string of bytes.

Contents first, then an index of names and lengths, then its length: what is written as it is found.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence

_LENGTH = struct.Struct("!I")
_LONGEST_NAME, _LONGEST_PART = 1024, 255
_REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_name(name: str) -> str:
    """The name, if it is a relative path of a file that stays where it is.

    Raises:
        TypeError: It is no string.
        ValueError: It is absolute, empty, too long, no Unicode, a directory's, or has a `..`.
    """
    if not isinstance(name, str):
        raise TypeError(f"files are named by str, not {type(name).__name__}")
    parts = _parts(name)
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"files are named by a relative path without '..', not {name[:99]!r}")
    if name.endswith(("/", "/.")):
        raise ValueError(f"files are named by a relative path that ends in a name, not {name!r}")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise ValueError(f"files are named by a relative path in Unicode, not {name!r}") from None
    if max(sizes) > _LONGEST_PART or sum(sizes) + len(sizes) > _LONGEST_NAME:
        raise ValueError(
            f"a relative path has at most {_LONGEST_NAME} bytes, {_LONGEST_PART} in each part: "
            f"{name[:99]!r}"
        )
    return name


def _parts(name: str) -> list[str]:
    # Not pathlib, which nothing else needs and every program would carry.
    return [part for part in name.split("/") if part not in ("", ".")]


def pack(files: Mapping[str, bytes]) -> bytes:
    """The files as one string."""
    index = _index([(name, len(content)) for name, content in files.items()])
    return b"".join([*files.values(), index])


def _index(sizes: Sequence[tuple[str, int]]) -> bytes:
    index = json.dumps(sizes).encode()
    return index + _LENGTH.pack(len(index))


def unpack(archive: bytes) -> dict[str, bytes]:
    """The files of a string that `pack` or `collect` made.

    Raises:
        ValueError: They did not make this one.
    """
    try:
        (length,) = _LENGTH.unpack(archive[-_LENGTH.size :])
        end = len(archive) - _LENGTH.size - length
        start, files = 0, {}
        for name, size in json.loads(archive[max(end, 0) : -_LENGTH.size]):
            files[check_name(name)] = archive[start : start + size]
            start += max(size, 0)
    except (struct.error, TypeError, RecursionError) as error:
        raise ValueError(f"no archive of files: {error}") from None
    if start != end:
        raise ValueError(f"an archive with {end} bytes of content that should have {start}")
    return files


def write(files: Mapping[str, bytes]) -> None:
    """Write the files below the current directory."""
    for name, content in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(content)


def collect(directory: str, names: Sequence[str], most_bytes: int, into: int) -> None:
    """Copy files that a program may have left, trusting nothing it did to them.

    The kernel copies them: their content never is in this process's memory.

    Args:
        directory: Where they are. It is the program's: links in it are not followed.
        names: Which, as relative paths.
        most_bytes: Room for all of them; those beyond are left out.
        into: Descriptor of the file that becomes their archive.
    """
    found = []
    end = 0
    for name in names:
        with contextlib.suppress(OSError), _opened(directory, _parts(name)) as file:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode) and end + status.st_size <= most_bytes:
                size = 0
                while part := os.sendfile(into, file, None, status.st_size - size):
                    size += part
                found.append((name, size))
                end += size
        os.lseek(into, end, os.SEEK_SET)
    os.ftruncate(into, end)
    os.write(into, _index(found))


@contextlib.contextmanager
def _opened(directory: str, parts: Sequence[str]) -> Iterator[int]:
    opened = os.open(directory, _DIRECTORY)
    try:
        for depth, part in enumerate(parts, 1):
            flags = _REGULAR if depth == len(parts) else _DIRECTORY
            above, opened = opened, os.open(part, flags, dir_fd=opened)
            os.close(above)
        yield opened
    finally:
        os.close(opened)
