"""With a real Ray of this machine's own: no mock shows what is left when a job is killed."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed (it has no release for Python 3.13)")

import ray

from ctpo.engines.verl.episodes.node_sandbox import NodeSandbox, node_sandbox
from ctpo.engines.verl.episodes.settings import SandboxSettings
from ctpo.tir.calls import Call
from ctpo.tir.programs import arun_program
from tests.ray_here import start
from tests.waiting import eventually

pytestmark = pytest.mark.verl  # Ray takes its time to start

SETTINGS = SandboxSettings(preload=(), workers=2, timeout=30.0)


@pytest.fixture(scope="module")
def cluster():
    start(num_cpus=4, num_gpus=0, log_to_driver=False, logging_level=logging.ERROR)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def tree(root):
    """The processes below one, itself included."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # gone meanwhile
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = {root}
    while more := {p for p, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def starts(pids):
    """Process ids with their start times, since ids are used again."""
    found = set()
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat[0] != "Z":
            found.add((pid, stat[19]))
    return found


def holder_of(sandbox):
    return ray.get(sandbox._actor().__ray_call__.remote(lambda holder: os.getpid()))


class _Worker:
    """Stands for one of verl's agent loop workers."""

    async def run(self, code):
        return await node_sandbox(SETTINGS).run(code)

    async def holder(self):
        actor = node_sandbox(SETTINGS)._actor()
        return await actor.__ray_call__.remote(lambda holder: os.getpid())


Worker: Any = ray.remote(num_cpus=0)(_Worker)


def test_all_of_a_nodes_workers_share_one_sandbox(cluster):
    workers = [Worker.remote() for _ in range(3)]
    refs = [w.run.remote(f"print({i})") for i, w in enumerate(workers * 4)]
    executions = ray.get(refs)
    assert [e.stdout for e in executions] == [f"{i}\n" for i in range(12)]
    assert all(e.queue_seconds >= 0 < e.own_seconds for e in executions)
    assert len(set(ray.get([w.holder.remote() for w in workers]))) == 1
    numbers = asyncio.run(NodeSandbox(SETTINGS).statistics())
    assert (numbers["workers"], numbers["outcomes"]) == (2, {"success": 12})


def test_a_killed_sandbox_is_back_for_the_second_attempt(cluster):
    async def run():
        sandbox = NodeSandbox(SandboxSettings(preload=(), workers=4, timeout=29.0))
        await sandbox.run("")
        victim = holder_of(sandbox)
        calls = [Call(f"import time; time.sleep(1); print({i})", None, 0, 0) for i in range(4)]
        running = asyncio.gather(*(arun_program(call, sandbox.run) for call in calls))
        while not running.done() and (await sandbox.statistics())["in_flight"] < 4:
            await asyncio.sleep(0.01)  # the programs end by themselves
        os.kill(victim, signal.SIGKILL)
        outcomes = await running
        await arun_program(Call("", None, 0, 0), sandbox.run)
        return outcomes, victim, holder_of(sandbox)

    outcomes, before, after = asyncio.run(run())
    assert [(o.status, o.shown) for o in outcomes] == [("success", f"{i}\n") for i in range(4)]
    assert before != after


def test_a_node_that_cannot_have_a_sandbox_says_why_every_time(cluster):
    async def run():
        sandbox = NodeSandbox(SandboxSettings(preload=("no_such_module",)))
        return [await sandbox.run("print(1)") for _ in range(2)]

    for execution in asyncio.run(run()):
        assert execution.status == "sandbox-failure"
        assert "No module named 'no_such_module'" in execution.failure


JOB = """
import asyncio, os, sys, ray
ray.init(address=sys.argv[1], namespace="job", log_to_driver=False, logging_level="error")
from ctpo.engines.verl.episodes.settings import SandboxSettings
from ctpo.engines.verl.episodes.node_sandbox import node_sandbox

@ray.remote(num_cpus=0)
class Worker:
    async def run(self, code):
        return await node_sandbox(SandboxSettings(preload=(), workers=2, timeout=3600.0)).run(code)
    async def holder(self):
        actor = node_sandbox(SandboxSettings(preload=(), workers=2, timeout=3600.0))._actor()
        return await actor.__ray_call__.remote(lambda holder: os.getpid())

worker = Worker.remote()
print(ray.get(worker.holder.remote()), flush=True)
ray.get([worker.run.remote("import time; time.sleep(3000)") for _ in range(2)])
"""


def test_a_killed_job_leaves_no_process_behind_on_a_cluster_that_stays(cluster):
    job = subprocess.Popen([sys.executable, "-c", JOB, cluster], stdout=subprocess.PIPE, text=True)
    try:
        assert job.stdout is not None
        holder = int(job.stdout.readline())
        # The sandbox's server, its fork server, and two programs at work.
        eventually(lambda: len(tree(holder)) >= 5)
        left = starts(tree(holder))
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert job.stdout is not None
        job.stdout.close()
    eventually(lambda: not left & starts(pid for pid, _ in left))
    worker = Worker.remote()
    assert ray.get([worker.run.remote("print(1)")])[0].stdout == "1\n"
