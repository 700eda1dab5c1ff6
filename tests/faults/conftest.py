import os
import shutil
import subprocess

import pytest

from .harness import child, counted, train


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Holds the warm start of all runs."""
    path = tmp_path_factory.mktemp("cache")
    run = tmp_path_factory.mktemp("runs") / "first"
    ended = child(lambda: train(run, path))
    assert ended.code == 0, ended.said
    return path


@pytest.fixture(scope="session")
def whole(cache, tmp_path_factory):
    """A run that nothing happened to, and how often it touched its files."""
    path = tmp_path_factory.mktemp("runs") / "whole"

    def work():
        count = counted(path.parent)
        train(path, cache)
        (path.parent / "events").write_text(str(count()))

    ended = child(work)
    assert ended.code == 0, ended.said
    return path


@pytest.fixture(scope="session")
def events(whole):
    return int((whole.parent / "events").read_text())


@pytest.fixture
def begun(whole, tmp_path):
    """A copy of the whole run without its end, so that there is something left to do."""
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    shutil.rmtree(path / "model")
    (path / "evaluations" / "final.json").unlink()
    return path


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many KiB, or changes its size."""
    path = tmp_path / "disk"
    path.mkdir()

    def mount(kib, *more):
        options = ",".join((f"size={kib}k", *more))
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
        if os.path.ismount(path):
            command = ["mount", "-o", f"remount,{options}", str(path)]
        if os.geteuid() or subprocess.run(command, check=False).returncode:
            pytest.skip("needs to mount a tmpfs")
        return path

    yield mount
    if os.path.ismount(path):
        subprocess.run(["umount", str(path)], check=True)
