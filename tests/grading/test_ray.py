"""Grading inside the workers of Ray, where an engine such as verl computes rewards."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from tests.grading.test_pool import wait_for_the_end_of

# A process of its own: Ray is one per process, and other tests may have theirs.
SCRIPT = r"""
import json, os, sys, threading
import ray
from tests.ray_here import start

ANSWERS = [r"\frac{\pi}{2}", r"\frac{\pi}{3}", "pi/2", r"\pi/2+10^{-40}"]

def told(box):
    from ctpo.grading import grade
    verdict = grade(rf"So \boxed{{{box}}}", r"\frac{2\pi}{4}")
    return [verdict.outcome, verdict.path]

def workers():
    from ctpo.grading.pool import shared_pool
    return [worker._process.pid for worker in shared_pool()._idle]

@ray.remote
def task():
    return os.getpid(), [told(box) for box in ANSWERS], workers()

@ray.remote(max_concurrency=4)  # a thread for each call under way
class Actor:
    def __init__(self):
        self.together = threading.Barrier(4)

    def grade(self, box):
        self.together.wait()
        return threading.get_ident(), told(box)

    def workers(self):
        return os.getpid(), workers()

start(num_cpus=1, log_to_driver=False, _temp_dir=sys.argv[1])
actor = Actor.remote()
from_threads = ray.get([actor.grade.remote(box) for box in 2 * ANSWERS])
actor_pid, actor_workers = ray.get(actor.workers.remote())
task_pid, from_task, task_workers = ray.get(task.remote())
print(json.dumps({
    "own": os.getpid(),
    "threads": len({thread for thread, _ in from_threads}),
    "from_threads": [found for _, found in from_threads],
    "from_task": from_task,
    "pids": [actor_pid, task_pid],
    "actor_workers": actor_workers,
    "task_workers": task_workers,
}), flush=True)
sys.stdin.readline()
ray.kill(actor)
sys.stdin.readline()
ray.shutdown()
"""


@pytest.mark.verl  # its Ray
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ctpo[verl]'"
)
def test_rays_tasks_and_the_threads_of_an_actor_grade_and_leave_no_process_behind():
    place = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
    environment = os.environ | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # other programs may fill this machine's memory
    }
    driver = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, place],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdin is not None and driver.stdout is not None
    try:
        found = json.loads(next(line for line in driver.stdout if line.startswith("{")))
        expected = [["right", "latex"], ["wrong", "latex"], ["right", "latex"], ["wrong", "latex"]]
        assert found["from_task"] == expected
        assert found["from_threads"] == 2 * expected
        assert found["threads"] >= 4
        assert len({found["own"], *found["pids"]}) == 3
        assert found["actor_workers"] and found["task_workers"]
        assert not {*found["actor_workers"]} & {*found["task_workers"]}
        driver.stdin.write("\n")
        driver.stdin.flush()
        for pid in found["actor_workers"]:
            wait_for_the_end_of(pid)
        driver.stdin.write("\n")
        driver.stdin.flush()
        driver.communicate()
        assert driver.returncode == 0
        for pid in found["task_workers"]:
            wait_for_the_end_of(pid)
    finally:
        driver.kill()
        driver.wait()
        shutil.rmtree(place, ignore_errors=True)
