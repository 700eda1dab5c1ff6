"""Every writer on a disk that is too small: a sentence, and the same bits when there is room."""

import json
import shutil
import signal
import sys
from functools import partial

import pytest

from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.training.evaluating.evaluate import evaluate_request
from ctpo.training.evaluating.request import EvaluationRequest
from ctpo.training.listening import Quiet

from .harness import child, content, counted, train

pytestmark = pytest.mark.faults

PLENTY = 1 << 20


def kib(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) >> 10


@pytest.mark.parametrize("percent", [1, 4, 10, 30, 60, 90])
def test_a_run_on_a_full_disk_says_so_and_goes_on(small_disk, cache, whole, percent):
    disk = small_disk(max(8, kib(whole) * percent // 100))
    ended = child(lambda: train(disk / "run", cache))
    assert ended.code == 1 and ended.said.startswith("OSError: [Errno 28]"), ended.said
    assert str(disk) in ended.said.splitlines()[0]
    small_disk(PLENTY)
    ended = child(lambda: train(disk / "run", cache))
    assert ended.code == 0, ended.said
    assert content(disk / "run") == content(whole)


@pytest.mark.parametrize("size", [4, 64])
def test_a_warm_start_on_a_full_disk_says_so_and_is_made_again(small_disk, tmp_path, whole, size):
    disk = small_disk(size)
    ended = child(lambda: train(tmp_path / "run", disk))
    assert ended.code == 1 and ended.said.startswith("OSError: [Errno 28]"), ended.said
    assert not [path for path in disk.iterdir() if path.is_dir()]
    small_disk(PLENTY)
    assert child(lambda: train(tmp_path / "run", disk)).code == 0
    assert content(tmp_path / "run") == content(whole)


def test_a_directory_that_cannot_be_written_is_named(small_disk, cache, begun, tmp_path):
    disk = small_disk(PLENTY)
    shutil.copytree(begun, disk / "run")
    small_disk(PLENTY, "ro")
    for work in (
        lambda: train(disk / "run", cache),
        lambda: train(disk / "other", cache),
        lambda: train(tmp_path / "new", disk / "cache"),
        lambda: evaluate(begun.parent / "nothing", disk / "evaluation"),
    ):
        ended = child(work)
        assert ended.code == 1 and ended.said.startswith("OSError: [Errno 30]"), ended.said
        assert str(disk) in ended.said.splitlines()[0]


def evaluate(model, output):
    evaluate_request(EvaluationRequest(model=str(model), problems=8, samples=2), output, Quiet())


@pytest.mark.parametrize("size", [4, 8, 16, 24])
def test_an_evaluation_on_a_full_disk_says_so_and_goes_on(small_disk, whole, tmp_path, size):
    disk = small_disk(size)
    ended = child(lambda: evaluate(whole, disk / "out"))
    assert ended.code == 1 and ended.said.startswith("OSError: [Errno 28]"), ended.said
    small_disk(PLENTY)
    for output in (disk / "out", tmp_path / "whole"):
        ended = child(partial(evaluate, whole, output))
        assert ended.code == 0, ended.said
    assert figures(disk / "out") == figures(tmp_path / "whole")


@pytest.mark.parametrize("share", range(5))
def test_an_evaluation_killed_at_any_moment_ends_with_the_same_figures(whole, tmp_path, share):
    def counting(output, at=None):
        count = counted(output.parent, at)
        evaluate(whole, output)
        print(count(), file=sys.stderr)

    for each in ("whole", "killed"):
        (tmp_path / each).mkdir()
    events = int(child(partial(counting, tmp_path / "whole" / "out")).said.split()[-1])
    killed = tmp_path / "killed" / "out"
    ended = child(partial(counting, killed, 1 + share * (events - 1) // 4))
    assert ended.code == -signal.SIGKILL
    ended = child(partial(evaluate, whole, killed))
    assert ended.code == 0, ended.said
    assert figures(killed) == figures(tmp_path / "whole" / "out")


def test_two_evaluations_do_not_work_in_one_directory(whole, tmp_path):
    with EvaluationDirectory(tmp_path / "out", {}):
        ended = child(partial(evaluate, whole, tmp_path / "out"))
    assert ended.code == 1 and ended.said.startswith("Busy: another process"), ended.said


def figures(output):
    summary = json.loads((output / "summary.json").read_text())
    return {name: one["figures"] for name, one in summary["benchmarks"].items()}
