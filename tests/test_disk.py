import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ctpo.disk import Busy, locked, whole_directory, write_whole

HOLDER = """
import sys, time
from pathlib import Path
from ctpo.disk import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(999)
"""


def test_a_lock_keeps_others_out_and_dies_with_its_holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=str(tmp_path)), locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        with locked(tmp_path, wait=True):
            with pytest.raises(Busy), locked(tmp_path):
                pass
    with locked(tmp_path):
        pass


def test_what_fails_half_way_leaves_what_was_there(tmp_path):
    def write(aside):
        aside.write_text("new")
        raise KeyboardInterrupt

    file, directory = tmp_path / "file", tmp_path / "directory"
    file.write_text("old")
    with whole_directory(directory) as aside:
        (aside / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, write)
    with pytest.raises(KeyboardInterrupt), whole_directory(directory) as aside:
        write(aside / "new")
    assert file.read_text() == "old"
    assert [each.name for each in directory.iterdir()] == ["old"]
    assert set(tmp_path.iterdir()) == {file, directory}


@pytest.mark.parametrize("path", [".", "/", "..", ""])
def test_a_place_that_is_no_file_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError) as caught:
        write_whole(Path(path), lambda aside: None)
    assert caught.value.filename == str(Path(path)) and caught.value.strerror


@pytest.fixture
def full(tmp_path):
    """A file system of 64 KiB."""
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=False
        ).returncode
    ):
        pytest.skip("needs to mount a tmpfs")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_is_named_whatever_the_library_says(full):
    def write(aside):
        try:
            (aside / "weights").write_bytes(bytes(1 << 20))
        except OSError:
            raise RuntimeError("file write failed") from None  # as torch says it

    with pytest.raises(OSError) as caught, whole_directory(full / "model") as aside:
        write(aside)
    assert caught.value.errno == errno.ENOSPC and str(full) in caught.value.filename
    assert not list(full.iterdir())
