"""What must hold on every rung that a machine may offer, tried as whoever gets no higher."""

import os

import pytest

from ctpo.sandbox import Sandbox
from ctpo.sandbox import protections as p

NESTED = """
import os
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
open("x", "w").close()
os.mkdir("closed", 0)
"""
WIDE = """
import os
for i in range(300):
    os.mkdir(str(i), 0o300)
    open(f"{i}/x", "w").close()
"""
DEATHS = [
    "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (0, 0))\nwhile True: pass",
    "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "import os\nos._exit(137)",
]
THREADS = """
import threading, time
threading.stack_size(32768)
for _ in range(3000):
    try:
        threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
    except (RuntimeError, MemoryError):
        break
time.sleep(1)
"""


@pytest.fixture(scope="module", params=p.RUNGS[:3], ids=["user-namespace", "root", "landlock"])
def rung(request):
    if os.geteuid() != 0 and request.param == p.ROOT_NAMESPACES:
        pytest.skip("needs root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctpo.sandbox.client.fork_servers.RUNGS", (request.param,))
        with Sandbox(workers=2, timeout=2.0, memory_mb=256) as started:
            yield started


@pytest.mark.parametrize("code", [NESTED, WIDE], ids=["nested", "wide"])
def test_a_tree_of_directories_is_cleared_away(rung, code):
    for _ in range(2):
        assert rung.run(code, timeout=60.0).status == "success"
        listed = rung.run_many(["import os; print(os.listdir())"] * 8, timeout=20.0)
        assert {execution.stdout for execution in listed} == {"[]\n"}
    assert rung.restarts == 0


@pytest.mark.parametrize("code", DEATHS)
def test_a_program_that_ends_itself_is_no_failure_of_the_sandbox(rung, code):
    assert rung.run(code, timeout=1.0).status in ("error", "timeout")


def test_threads_of_one_program_leave_room_for_the_next(rung):
    hog = rung.submit(THREADS, timeout=9.0)
    answers = [rung.run("print(1)", timeout=9.0).stdout for _ in range(20)]
    assert set(answers) == {"1\n"}
    assert hog.result(60).status != "sandbox-failure"


def test_a_session_does_nothing_between_its_calls(rung):
    with rung.session() as session:
        burn = "import threading, time\ndef burn():\n    while True: pass\n"
        start = "for _ in range(3): threading.Thread(target=burn, daemon=True).start()"
        assert session.run(burn + start, timeout=20.0).status == "success"
        code = "time.process_time()"
        before = float(session.run(code, echo=True, timeout=20.0).stdout)
        for _ in range(5):
            rung.run("import time; time.sleep(0.2)")
        after = float(session.run(code, echo=True, timeout=20.0).stdout)
        assert after - before < 0.7, "of a second in which it could have burned more"


def test_a_session_keeps_no_inputs_of_earlier_calls(rung):
    with rung.session() as session:
        session.run("import os\nkept = []", timeout=20.0)
        for _ in range(3):
            session.run("kept.append(os.dup(0))", stdin="x" * (4 << 20), timeout=20.0)
        sizes = "print([os.fstat(descriptor).st_size for descriptor in kept])"
        assert session.run(sizes, timeout=20.0).stdout == "[0, 0, 0]\n"
        grow = "try: os.pwrite(kept[0], b'x' * 9, 0)\nexcept OSError: print('refused')"
        assert session.run(grow, timeout=20.0).stdout == "refused\n"
