"""However a program dies by itself, the sandbox has not failed; and no neighbour pays for it."""

import os
import signal
import time

import pytest

from ctpo.sandbox import Sandbox

DEATHS = {
    "a lower limit on CPU time": "resource.setrlimit(resource.RLIMIT_CPU, (1, 1)); burn()",
    "none at all": "resource.setrlimit(resource.RLIMIT_CPU, (0, 0)); burn()",
    "a lower hard limit, by prlimit": "resource.prlimit(0, resource.RLIMIT_CPU, (1, 1)); burn()",
    "deaf to the soft one": """
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_CPU, (1, 2)); burn()""",
    "no more memory": "resource.setrlimit(resource.RLIMIT_AS, (1, 1)); bytes(9 << 20); burn()",
    "no stack": "resource.setrlimit(resource.RLIMIT_STACK, (0, 0)); deep(); os._exit(3)",
    "no data": "resource.setrlimit(resource.RLIMIT_DATA, (0, 0)); list(range(10**6)); os._exit(3)",
    "real time": "resource.setrlimit(resource.RLIMIT_RTTIME, (1, 1)); burn()",
    "no file": "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); open('x', 'w').write('x' * 9)",
    "an alarm": "signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(9)",
    "processor time's alarm": "signal.setitimer(signal.ITIMER_PROF, 0.01); burn()",
    "aborting": "os.abort()",
    "a wild pointer": "ctypes.string_at(1)",
    "stopping": "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(9)",
    "exit code 137": "os._exit(137)",
    "exit code -9": "os._exit(-9 & 0xff)",
    "SIGKILL": "os.kill(os.getpid(), 9); os._exit(3)",
    "SIGKILL to its group": "os.killpg(0, 9); os._exit(3)",
    "SIGKILL by tgkill": "libc.syscall(CALLS['tgkill'], os.getpid(), os.getpid(), 9); os._exit(3)",
    "SIGKILL through a pidfd": "signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 9)",
    "SIGKILL at the parent's death": "libc.prctl(1, 9, 0, 0, 0); os._exit(3)",
    "SIGKILL from a timer": """
event, timer = struct.pack("=Qii", 0, 9, 0) + bytes(48), ctypes.create_string_buffer(8)
if libc.timer_create(0, event, timer) == 0:
    libc.timer_settime(timer, 0, struct.pack("=4Q", 0, 0, 0, 1), None)
burn()""",
    "strict seccomp": """
libc.prctl(22, 1, 0, 0, 0)
libc.syscall(CALLS["seccomp"], 0, 0, None)
os._exit(3)""",
    "a forbidden architecture": """
if os.uname().machine == "x86_64":
    import mmap
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(bytes.fromhex("b814000000cd80c3"))
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
os._exit(3)""",
    "every signal there is": """
for number in range(1, 65):
    try: os.kill(os.getpid(), number)
    except OSError: pass
os._exit(3)""",
    "in a thread": """
import threading
resource.setrlimit(resource.RLIMIT_CPU, (0, 0))
for _ in range(4): threading.Thread(target=burn).start()""",
}
PRELUDE = """
import ctypes, os, resource, signal, struct, time
libc = ctypes.CDLL(None)
numbers = (131, 277) if os.uname().machine == "aarch64" else (234, 317)
CALLS = dict(zip(("tgkill", "seccomp"), numbers))
def burn():
    while True: pass
def deep(): ctypes.CFUNCTYPE(None)(deep)()
"""


@pytest.mark.parametrize("name", DEATHS)
def test_a_program_that_ends_itself_is_no_failure_of_the_sandbox(one_worker, name):
    execution = one_worker.run(PRELUDE + DEATHS[name], timeout=1.0)
    assert execution.status != "sandbox-failure", execution
    assert one_worker.run("print(1)").stdout == "1\n"


def test_a_session_that_ends_itself_is_no_failure_either(one_worker):
    for code in ("resource.setrlimit(resource.RLIMIT_CPU, (0, 0)); burn()", "os._exit(137)"):
        with one_worker.session() as session:
            assert session.run(PRELUDE + code, timeout=1.0).status in ("error", "timeout")


@pytest.mark.parametrize("files", [None, {"a": b"x"}])
def test_nothing_of_a_program_that_is_killed_from_outside_counts_as_its_own(processes, files):
    with Sandbox(workers=1) as sandbox:
        root = processes.server_of(sandbox)
        assert processes.settles(root, lambda tree: len(tree) == 6)
        idle = processes.tree(root)
        future = sandbox.submit("import time; time.sleep(99)", timeout=100.0, files=files)
        while not (program := processes.tree(root) - idle):
            time.sleep(0.01)
        os.kill(max(program), signal.SIGKILL)
        assert future.result(60).status == "sandbox-failure"
