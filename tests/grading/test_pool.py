"""The worker processes: shared by threads, killed when late, gone at the end."""

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctpo.grading import grade
from ctpo.grading import pool as grading_pool
from ctpo.grading.pool import Pool, _Worker
from tests.somebody import become_somebody, place_of_somebody
from tests.waiting import PATIENCE, eventually

HEAVY = ("10^{10^{10}}+1", "10^{10^{10}}")


@pytest.fixture
def pool():
    pool = Pool(size=2)
    yield pool
    pool.close()


def _alive(pid):
    """Whether a process runs; one that is dead but not waited for is a zombie and counts."""
    return Path(f"/proc/{pid}").exists()


def wait_for_the_end_of(pid):
    """Waits for a process whose parent is gone, so that nobody here can wait for it."""

    def state():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "X"

    # Some containers have no process that waits for orphans.
    eventually(state, lambda state: state in "ZX", f"the end of process {pid}")


def _workers(pool):
    return [worker._process.pid for worker in pool._idle]


def test_many_threads_get_each_their_own_answer(pool):
    def equal(number):
        return pool.compare(f"{number}+{number}", str(2 * number + number % 2), 30).equal

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(equal, range(40)))
    assert found == [number % 2 == 0 for number in range(40)]
    assert len(_workers(pool)) <= 2


def test_a_worker_is_used_again(pool):
    pool.compare("1+1", "2", 30)
    first = _workers(pool)
    pool.compare("1+1", "3", 30)
    assert _workers(pool) == first


def test_a_late_worker_is_killed_and_the_next_question_gets_its_own_answer(pool):
    pool.compare("1+1", "2", 30)
    (pid,) = _workers(pool)
    late = pool.compare(*HEAVY, 0.2)
    assert (late.equal, late.reason) == (
        None,
        "no verdict within 0.2 s of processor time",
    )
    assert not _alive(pid)
    assert pool.compare("1+1", "3", 30).equal is False


def test_a_late_formula_does_not_hold_up_another(pool):
    pool._idle += [_Worker(), _Worker()]
    workers = list(pool._idle)
    heavy = threading.Thread(target=pool.compare, args=(*HEAVY, 3600, 3600))
    heavy.start()
    eventually(lambda: len(pool._idle) == 1)
    (late,) = (worker for worker in workers if worker not in pool._idle)
    with ThreadPoolExecutor(1) as threads:
        quick = threads.submit(pool.compare, "1+1", "2", 30)
        try:
            assert quick.result(PATIENCE).equal is True
            assert heavy.is_alive()
        finally:
            os.kill(late._process.pid, signal.SIGKILL)
            heavy.join()


def test_a_worker_that_dies_leaves_the_verdict_open(pool):
    pool.compare("1+1", "2", 30)
    (pid,) = _workers(pool)
    os.kill(pid, signal.SIGKILL)
    died = pool.compare("1+1", "2", 30)
    assert (died.equal, died.reason) == (None, "the grading worker died")
    assert pool.compare("1+1", "2", 30).equal is True


def test_closing_leaves_no_process_behind_and_the_pool_usable(pool):
    pool.compare("1+1", "2", 30)
    pids = _workers(pool)
    pool.close()
    assert pids
    assert not any(map(_alive, pids))
    assert pool.compare("1+1", "2", 30).equal is True


def test_an_interrupt_does_not_shift_the_answers(pool, monkeypatch):
    pool.compare("1+1", "2", 30)
    (worker,) = pool._idle

    def interrupt(timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_read_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.compare("1+1", "2", 30)
    assert not _alive(worker._process.pid)
    assert pool.compare("1+1", "3", 30).equal is False


def test_a_worker_that_waits_is_killed_by_the_clock(pool, monkeypatch):
    pool.compare("1+1", "2", 30)
    (worker,) = pool._idle
    os.kill(worker._process.pid, signal.SIGSTOP)  # it uses no processor time at all
    late = pool.compare("1+1", "2", 30, hard_timeout=0.2)
    assert (late.equal, late.reason) == (None, "no verdict within 0.2 s by the clock")
    assert not _alive(worker._process.pid)
    assert pool.compare("1+1", "3", 30).equal is False


def test_a_worker_is_replaced_before_it_fills_the_memory(pool, monkeypatch):
    monkeypatch.setattr(grading_pool, "MAX_CALLS", 3)
    pids = []
    for _ in range(3):
        pids += _workers(pool)
        assert pool.compare("1+1", "2", 30).equal is True
    assert len(set(pids)) == 1
    assert not _alive(pids[0])
    monkeypatch.setattr(grading_pool, "MAX_BYTES", 1)
    assert pool.compare("1+1", "2", 30).equal is True
    assert not _workers(pool)


def test_a_worker_that_cannot_start_is_told_at_once_and_loudly(pool, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(3):
        comparison = pool.compare("1+1", "2", 30)
        assert comparison.equal is None
        assert "did not start" in comparison.reason
    assert len(caplog.records) == 1  # one attempt, not one per formula
    monkeypatch.undo()
    monkeypatch.setattr(grading_pool, "RETRY_SECONDS", 0)
    assert pool.compare("1+1", "2", 30).equal is True


def test_a_file_in_the_working_directory_does_not_stand_in_for_a_library(
    pool, tmp_path, monkeypatch
):
    (tmp_path / "sympy.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert pool.compare("1+1", "2", 30).equal is True


SCRIPT = r"""
import os, threading
from ctpo.grading import grade
from ctpo.grading.pool import shared_pool
threads = [
    threading.Thread(target=grade, args=(r"\boxed{x+x}", "2x")) for _ in range(3)
]
[t.start() for t in threads]
[t.join() for t in threads]
pids = [w._process.pid for w in shared_pool()._idle]
if os.fork() == 0:
    assert grade(r"\boxed{x+x}", "3x").outcome == "wrong"
    mine = [w._process.pid for w in shared_pool()._idle]
    assert mine and not set(mine) & set(pids)
    raise SystemExit
_, status = os.wait()
assert status == 0
assert grade(r"\boxed{x+x}", "2x").outcome == "right"
assert pids == [w._process.pid for w in shared_pool()._idle]
print(*pids)
"""


def test_workers_end_with_their_process_and_a_fork_has_its_own():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split()
    assert not any(map(_alive, done.stdout.split()))


def test_a_worker_ends_by_itself_when_its_parent_is_killed():
    code = (
        "from ctpo.grading.pool import Pool; p = Pool(1); p.compare('1+1', '2', 60);"
        "print(p._idle[0]._process.pid, flush=True); import time; time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = parent.stdout.readline().strip()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for_the_end_of(pid)


@pytest.mark.parametrize("most", [1 << 30, 64 << 30])
def test_a_worker_takes_no_more_memory_than_its_process_may(most):
    code = "from ctpo.grading import grade; print(grade(r'\\boxed{(x+1)^2}', 'x^2+2x+1').outcome)"

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        if root:
            become_somebody()

    root = os.geteuid() == 0  # who may raise hard limits
    with place_of_somebody() if root else contextlib.nullcontext():
        result = subprocess.run(
            [sys.executable, "-c", code],
            preexec_fn=limited,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert result.stdout.strip() == "right", result.stderr


def test_grading_works_in_a_thread():
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(grade, r"\boxed{\frac{\pi}{2}}", "pi/2").result()
    assert result.outcome == "right"


def _grade_and_tell(queue):
    queue.put(grade(r"\boxed{\frac{\pi}{2}}", "pi/2").outcome)


def test_grading_works_in_a_daemonic_process_that_may_have_no_children_of_its_own():
    # As the workers of data loaders and of Ray are.
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_grade_and_tell, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=300) == "right"
    process.join()
