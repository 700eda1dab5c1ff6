"""Files and directories that are whole or not there, and locks that die with their holder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""Name of the lock in a directory that one process at a time may write."""

_PROBE_BYTES = 1 << 16
_UNLOCKABLE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class Busy(ValueError):
    """Another process is at work in a directory; the message names it."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file aside and move it in at once: a process killed meanwhile leaves no half of it.

    Args:
        path: The file; what is there is replaced.
        write: Writes it to the path that it is given.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    aside = _aside(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "there is something else than a file", str(path))
    try:
        with disk_errors(path.parent):
            write(aside)
            _flush(aside)
            aside.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            aside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; see `write_whole`."""
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def check_parquet_name(path: Path) -> None:
    """Refuse a name by which nobody would take a file for the Parquet that will be in it.

    Raises:
        ValueError: It ends otherwise.
    """
    if path.suffix != ".parquet":
        raise ValueError(
            f"{path} is to be written as Parquet; give it a name that ends in .parquet"
        )


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory to fill; it becomes `path` when the block ends without an error.

    Who may read new directories of this user may read its files, whatever a library made of them.
    What is at `path` is replaced. Of two processes at one path the caller takes care (`locked`).

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    aside = _aside(path)
    with disk_errors(path.parent):
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
        aside.mkdir(parents=True)
        try:
            with disk_errors(aside):
                yield aside
            readable = aside.stat().st_mode & 0o666
            for each in (*aside.rglob("*"), aside):
                if each.is_file():  # safetensors are written for their owner alone
                    each.chmod(readable)
                _flush(each)
            if path.exists():
                shutil.rmtree(path)
            aside.rename(path)
            _flush(path.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


@contextmanager
def locked(directory: Path, name: str = LOCK, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a directory. The lock ends with this process, however it ends.

    Args:
        directory: An existing directory.
        name: File in it that is locked; it stays there.
        wait: Wait for another process instead of raising.

    Raises:
        Busy: Another process is at work there.
        OSError: The file cannot be made, or this user may not write in the directory.
    """
    try:
        descriptor = os.open(directory / name, os.O_CREAT | os.O_RDWR, 0o644)
    except PermissionError as error:
        if not os.access(directory, os.W_OK):
            raise PermissionError(error.errno, error.strerror, str(directory)) from None
        # Another user made it, as in a cache that several share; to lock it, reading is enough.
        descriptor = os.open(directory / name, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Busy(f"another process is at work in {directory}") from None
        except OSError as error:
            if error.errno not in _UNLOCKABLE:
                raise
            logger.warning(
                "the file system of %s has no locks (%s): see to it that no second process works "
                "there",
                directory,
                error.strerror,
            )
        yield
    finally:
        os.close(descriptor)


def is_locked(directory: Path, name: str = LOCK) -> bool:
    """Return whether a process is at work in a directory, see `locked`.

    Args:
        directory: The directory.
        name: File in it that is locked.
    """
    try:
        with (directory / name).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock was ever taken, or there are none on this file system
        pass
    return False


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Say that a disk is full or read-only where a library says something else.

    torch and safetensors raise errors of their own; so after any, a few bytes are written on trial.
    An error of the disk that names no file gets the directory's name.

    Raises:
        OSError: Nothing can be written to the directory; the block's error is its cause.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # A write to an open file does not say to which.
        raise OSError(error.errno, error.strerror, str(directory)) from error
    except Exception as error:
        try:
            with tempfile.TemporaryFile(dir=directory) as probe:
                probe.write(bytes(_PROBE_BYTES))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as trouble:
            raise OSError(trouble.errno, trouble.strerror, str(directory)) from error
        raise


def clear_unfinished(directory: Path) -> None:
    """Remove what a process that was killed was writing aside, anywhere in a directory."""
    for left in list(directory.rglob(".*.unfinished")):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    if not path.name:  # as of "." and "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f".{path.name}.unfinished")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
