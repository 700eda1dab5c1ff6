"""What callers may pass, checked before any work is done."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from ctpo.sandbox import archive
from ctpo.sandbox.jail.plan import SCRATCH_BYTES, SCRATCH_INODES

_PAGE = resource.getpagesize()
_MOST_WORKERS = 256
_WORKERS_PER_PROCESSOR = 2
_LONGEST_SECONDS = 86_400
_MOST_SESSIONS = 64
_MOST_NAME_BYTES = 1 << 18


def check_count(name: str, value: object) -> None:
    """Check a whole number from 1.

    Raises:
        TypeError: It is none.
        ValueError: It is smaller.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")


def workers(value: int | None, memory_mb: int) -> int:
    """How many programs run at once: what was asked for, or what fits the machine.

    Raises:
        TypeError: It is no int.
        ValueError: There are too few or too many, or the machine has too little memory for them.
    """
    memory = machine_memory_mb()
    if value is None:
        wanted = _WORKERS_PER_PROCESSOR * len(os.sched_getaffinity(0))
        return max(1, min(wanted, memory // memory_mb, _MOST_WORKERS))
    check_count("workers", value)
    if value > _MOST_WORKERS:
        raise ValueError(f"workers must be at most {_MOST_WORKERS}, not {value}")
    if value * memory_mb > memory and value > 1:
        raise ValueError(
            f"workers × memory_mb is {value} × {memory_mb} MiB, but the machine has {memory} MiB: "
            f"all programs at their limit would not fit"
        )
    return value


def sessions(value: int | None, workers: int, memory_mb: int) -> int:
    """How many sessions may be open: what was asked for, or what fits the machine with the workers.

    Raises:
        TypeError: It is no int.
        ValueError: There are too few, or the machine has too little memory for them.
    """
    room = max(1, machine_memory_mb() // memory_mb - workers)
    if value is None:
        return min(room, _MOST_SESSIONS)
    check_count("sessions", value)
    if value > room:
        raise ValueError(
            f"sessions × memory_mb is {value} × {memory_mb} MiB, but beside {workers} workers the "
            f"machine has room for {room} of them"
        )
    return value


def machine_memory_mb() -> int:
    """Memory in MiB of the machine, or of this process's control group if that is less."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            most = min(most, int(file.read()))
    return most >> 20


def modules(preload: Sequence[str]) -> tuple[str, ...]:
    """Names of modules.

    Raises:
        TypeError: It is one str.
        ValueError: It has something else.
    """
    if isinstance(preload, str):
        raise TypeError("preload must be a sequence of module names, not a str")
    for module in preload:
        if not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"preload must hold names of modules, not {module!r}")
    return tuple(preload)


def switches(without: Iterable[str], known: Collection[str]) -> frozenset[str]:
    """Names of protections.

    Raises:
        ValueError: One is not known.
    """
    names = frozenset(without)
    if unknown := names - set(known):
        raise ValueError(f"without must hold names of {known}, not {sorted(unknown)}")
    return names


def seconds(timeout: object, name: str = "timeout") -> float:
    """A positive finite number.

    Raises:
        TypeError: It is no number.
        ValueError: It is not positive, or not finite.
    """
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"{name} must be a number, not {type(timeout).__name__}")
    if not (math.isfinite(timeout) and 0 < timeout <= _LONGEST_SECONDS):
        raise ValueError(
            f"{name} must be positive and at most {_LONGEST_SECONDS} s (a day), not {timeout}"
        )
    return float(timeout)


def check_seed(value: object) -> None:
    """Check a number that numpy takes for a seed, too.

    Raises:
        TypeError: It is no int.
        ValueError: It is negative or has more than 32 bits.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"seed must be an int, not {type(value).__name__}")
    if not 0 <= value < 1 << 32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, not {value}")


def check_text(name: str, value: object) -> None:
    """Check a text.

    Raises:
        TypeError: It is no str.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")


def files(given: Mapping[str, bytes | str] | None) -> dict[str, bytes]:
    """Files to lay out, as bytes.

    Raises:
        TypeError: A name is no str or a content neither bytes nor str.
        ValueError: A name is no relative path that stays below or lies in another file, or they are
            more than the working directory holds.
    """
    if given is not None and len(given) > SCRATCH_INODES:
        raise ValueError(f"files may have {SCRATCH_INODES} files, not {len(given)}")
    checked: dict[str, bytes] = {}
    for name, content in (given or {}).items():
        if not isinstance(content, (bytes, str)):
            raise TypeError(f"files[{name!r}] must be bytes or str, not {type(content).__name__}")
        path = str(PurePosixPath(archive.check_name(name)))
        if path in checked:
            raise ValueError(f"files has {name!r} twice")
        checked[path] = content.encode() if isinstance(content, str) else bytes(content)
    _check_room(checked)
    return checked


def _check_room(checked: Mapping[str, bytes]) -> None:
    if not checked:
        return
    paths = {PurePosixPath(name) for name in checked}
    folders = {folder for path in paths for folder in path.parents}
    if clash := paths & folders:
        raise ValueError(f"files has both {str(clash.pop())!r} and a file in it")
    needed = sum(-(-len(content) // _PAGE) * _PAGE for content in checked.values())
    if needed > SCRATCH_BYTES or len(paths | folders) > SCRATCH_INODES:
        raise ValueError(
            f"files has {len(checked)} files of {needed >> 20} MiB; the working directory holds "
            f"{SCRATCH_BYTES >> 20} MiB and {SCRATCH_INODES} files and folders"
        )


def names(collect: Sequence[str], field: str = "collect") -> tuple[str, ...]:
    """Files to collect.

    Raises:
        TypeError: It is one str, or holds something else.
        ValueError: A name is no relative path that stays below, is there twice, or they are too
            many or together too long.
    """
    if isinstance(collect, str):
        raise TypeError(f"{field} must be a sequence of paths, not a str")
    if len(collect) > SCRATCH_INODES:
        raise ValueError(f"{field} may have {SCRATCH_INODES} paths, not {len(collect)}")
    found = tuple(archive.check_name(name) for name in collect)
    seen: set[PurePosixPath] = set()
    for name in found:
        if PurePosixPath(name) in seen:
            raise ValueError(f"{field} has {name!r} twice")
        seen.add(PurePosixPath(name))
    if (size := sum(len(name.encode()) for name in found)) > _MOST_NAME_BYTES:
        raise ValueError(f"{field} may have {_MOST_NAME_BYTES} bytes of paths, not {size}")
    return found
