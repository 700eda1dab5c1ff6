import os
import socket
import tempfile
from pathlib import Path

import pytest

from ctpo.sandbox import Sandbox


@pytest.mark.parametrize(
    ("pollute", "check"),
    [
        ("secret = 1", "print('secret' in globals())"),
        ("import builtins; builtins.len = lambda x: 1", "print(len([]) == 1)"),
        (
            "import json; json.dumps = None; json.secret = 1",
            "import json; print(json.dumps is None)",
        ),
        ("import sys; sys.modules['math'] = 1", "import math; print(math == 1)"),
        ("import os; os.environ['SECRET'] = '1'", "import os; print('SECRET' in os.environ)"),
        (
            "import os; os.putenv('SECRET', '1')",
            "import ctypes; get = ctypes.CDLL(None).getenv; get.restype = ctypes.c_char_p;"
            " print(get(b'SECRET') is not None)",
        ),
        ("open('left', 'w').write('x')", "import os; print(os.listdir('.') != [])"),
        ("open('/tmp/left', 'w').write('x')", "import os; print(os.path.exists('/tmp/left'))"),
        (
            "import os; os.chmod('.', 0o711)",
            "import os; print(os.stat('.').st_mode & 0o777 != 0o700)",
        ),
        ("import os; os.chdir('/')", "import os; print(os.getcwd() == '/')"),
        (
            "import sys; sys.setrecursionlimit(77)",
            "import sys; print(sys.getrecursionlimit() == 77)",
        ),
        ("import sys; sys.path.append('x')", "import sys; print('x' in sys.path)"),
        (
            "import random; random.seed(5)",
            "import random; print(random.random() == 0.6229016948897019)",
        ),
        (
            "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); os.nice(5)",
            # The tests may run at another priority than 0.
            f"import os; print(os.getpriority(0, 0) != {os.getpriority(0, 0)})",
        ),
        (
            # A System V shared memory segment outlives its process.
            "import ctypes; print(ctypes.CDLL(None).shmget(42, 4096, 0o1666))",
            "import ctypes; print(ctypes.CDLL(None).shmget(42, 4096, 0) >= 0)",
        ),
        (
            "import socket; socket.sethostname('secret')",
            "import socket; print(socket.gethostname() == 'secret')",
        ),
    ],
)
def test_nothing_passes_from_one_run_to_the_next(one_worker, pollute, check):
    one_worker.run(pollute)
    assert one_worker.run(check).stdout == "False\n"


def test_same_code_same_output():
    pytest.importorskip("numpy")
    code = (
        "import random, numpy\n"
        "print(random.random(), numpy.random.rand(), hash('x'), {'a', 'b', 'c', 'd'})\n"
    )
    outputs = set()
    for _ in range(2):
        with Sandbox(workers=2, preload=["numpy"]) as sandbox:
            outputs |= {e.stdout for e in sandbox.run_many([code] * 4)}
    assert len(outputs) == 1 and "" not in outputs


def test_no_network():
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        Sandbox(workers=1) as sandbox,
    ):
        abstract.bind(name := f"\0ctpo-test-{os.getpid()}")
        abstract.listen()
        udp.bind(("127.0.0.1", 0))
        code = (
            "import socket\n"
            "def reach(what):\n"
            "    try:\n"
            "        what()\n"
            "        print('reached')\n"
            "    except OSError:\n"
            "        print('refused')\n"
            f"reach(lambda: socket.create_connection({tcp.getsockname()}, 2))\n"
            f"reach(lambda: socket.socket(socket.AF_UNIX).connect({name!r}))\n"
            "reach(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
            f".sendto(b'x', {udp.getsockname()}))\n"
            "reach(lambda: socket.getaddrinfo('example.org', 80))\n"
        )
        execution = sandbox.run(code, timeout=10.0)
        assert execution.stdout == "refused\n" * 4, execution
        for server, arrived in ((tcp, tcp.accept), (abstract, abstract.accept), (udp, udp.recv)):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                arrived(*([10] if server is udp else []))


def test_what_no_namespace_contains_is_refused(sandbox):
    code = (
        "import ctypes, os, socket\n"
        "for family in range(64):\n"
        "    for kind in (1, 2, 3, 5):\n"
        "        try: socket.socket(family, kind)\n"
        "        except OSError: continue\n"
        "        print(socket.AddressFamily(family).name, end=' ')\n"
        "        break\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "numbers = {'x86_64': (248, 249, 250), 'aarch64': (217, 218, 219)}[os.uname().machine]\n"
        "for number in (*numbers, 425):\n"
        "    print(libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno(), end=' ')\n"
    )
    assert sandbox.run(code).stdout == "-1 1 " * 3 + "-1 38 "


def test_the_hosts_secrets_cannot_be_read(monkeypatch):
    monkeypatch.setenv("CTPO_TEST_SECRET", "hush-environment")
    with tempfile.TemporaryDirectory() as directory, Sandbox(workers=1) as sandbox:
        os.chmod(directory, 0o755)
        secret = Path(directory, "secret")
        secret.write_text("hush-file")
        secret.chmod(0o644)
        code = (
            "import glob, os\n"
            f"paths = [{str(secret)!r}, '/etc/passwd', '/etc/hostname', {__file__!r}]\n"
            "paths += glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline')\n"
            f"paths += ['/proc/self/environ', '/proc/{os.getpid()}/environ', '/proc/1/mem']\n"
            "for path in paths:\n"
            "    try:\n"
            "        print('read', path, open(path, 'rb').read(20))\n"
            "    except OSError:\n"
            "        pass\n"
            "    if os.path.exists(path): print('exists', path)\n"
            "print(os.listdir('/proc') if os.path.exists('/proc') else '')\n"
            "print([k for k in os.environ if 'CTPO' in k])\n"
        )
        execution = sandbox.run(code)
    assert execution.stdout == "\n[]\n", execution


def test_no_descriptor_of_the_server_is_inherited(sandbox):
    code = (
        "import os\n"
        "for fd in range(3, 4096):\n"
        "    try: print(fd, os.fstat(fd))\n"
        "    except OSError: continue\n"
        "print('end')\n"
    )
    assert sandbox.run(code).stdout == "end\n"


def test_only_the_scratch_directory_can_be_written(sandbox):
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        before = {path: path.stat().st_mtime_ns for path in map(Path, (directory, os.__file__))}
        code = (
            "import os, sys, json\n"
            "places = ['/', '/usr', '/usr/bin', '/etc', '/dev', '/dev/shm', '/bin', '/lib',\n"
            "    os.path.dirname(os.__file__), os.path.dirname(json.__file__), sys.prefix,\n"
            f"    sys.base_prefix, os.path.dirname(sys.executable), {directory!r}]\n"
            "for place in places:\n"
            "    if os.path.exists(place) and not os.statvfs(place).f_flag & os.ST_RDONLY:\n"
            "        print('writable', place)\n"
            "    for attempt in (lambda: open(place + '/x', 'w'), lambda: os.mkdir(place + '/y'),\n"
            "                    lambda: os.chmod(place, 0o777), lambda: os.utime(place)):\n"
            "        try:\n"
            "            attempt()\n"
            "            print('changed', place)\n"
            "        except OSError:\n"
            "            pass\n"
            "try:\n"
            "    os.utime(os.__file__); print('touched')\n"
            "except OSError: pass\n"
            "open('mine', 'w').write('ok')\n"
            "import tempfile; tempfile.NamedTemporaryFile().write(b'ok')\n"
            "open(os.path.expanduser('~/also'), 'w').write('ok')\n"
            "print(open('mine').read())\n"
        )
        assert sandbox.run(code).stdout == "ok\n"
        assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_scratch_directory_is_bounded(sandbox):
    code = (
        "try:\n"
        "    for i in range(100):\n"
        "        open(str(i), 'wb').write(bytes(8 << 20))\n"
        "except OSError as error:\n"
        "    print(error.strerror, i < 10)\n"
    )
    assert sandbox.run(code).stdout == "No space left on device True\n"
    code = "try:\n    for i in range(10**5): open(str(i), 'w')\nexcept OSError: print(i < 5000)"
    assert sandbox.run(code).stdout == "True\n"


def test_privileges_cannot_be_had(sandbox):
    code = (
        "import ctypes, os, resource\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def attempt(name, call):\n"
        "    try: result = call()\n"
        "    except (OSError, ValueError): return\n"
        "    if result is None or result >= 0: print(name)\n"
        "attempt('root', lambda: os.setuid(0))\n"
        "attempt('other user', lambda: os.setuid(1))\n"
        "attempt('group', lambda: os.setgroups([0]))\n"
        "attempt('user namespace', lambda: libc.unshare(0x10000000))\n"
        "attempt('mount namespace', lambda: libc.unshare(0x20000))\n"
        "attempt('mount', lambda: libc.mount(b'x', b'/sandbox', b'tmpfs', 0, None))\n"
        "attempt('proc', lambda: libc.mount(b'x', b'/sandbox', b'proc', 0, None))\n"
        "attempt('umount', lambda: libc.umount2(b'/sandbox', 2))\n"
        "attempt('chroot', lambda: os.chroot('.'))\n"
        "attempt('device', lambda: os.mknod('d', 0o20666, os.makedev(1, 1)))\n"
        "attempt('ptrace', lambda: libc.ptrace(16, 1, None, None))\n"
        "attempt('nice', lambda: os.nice(-5))\n"
        "for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC):\n"
        "    attempt('limit', lambda: resource.setrlimit(kind, (-1, -1)))\n"
        "no_new_privileges, dumpable = libc.prctl(39, 0, 0, 0, 0), libc.prctl(3, 0, 0, 0, 0)\n"
        "print(os.getgroups(), os.getuid() == 0, no_new_privileges, dumpable)\n"
    )
    assert sandbox.run(code).stdout == "[] False 1 0\n"


def test_nobody_else_can_be_signalled(sandbox, processes):
    server = processes.server_of(sandbox)
    (fork_server,) = processes.fork_servers(server)
    idle = processes.settles(
        fork_server, lambda tree: len(tree) == 1 + 4 + 2
    )  # two held ready besides
    neighbour = sandbox.submit("import time; time.sleep(999)", timeout=1000.0)
    (program,) = processes.settles(fork_server, lambda tree: len(tree - idle) == 1) - idle
    victims = sorted(processes.tree(server) | {os.getpid(), os.getppid(), 1, -1, 0})
    code = (
        "import os, signal\n"
        "group = os.getpgrp()\n"  # with the worker that it is a fork of
        f"for pid in {victims} + list(range(2, 400)) + [os.getppid(), group, -group]:\n"
        "    if pid == os.getpid(): continue\n"
        "    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGSTOP):\n"
        "        try:\n"
        "            os.kill(pid, number)\n"
        "            if pid != -1: print('signalled', pid)\n"
        "        except OSError:\n"
        "            pass\n"
        "print('end')\n"
    )
    execution = sandbox.run(code)
    assert execution.stdout == "end\n", execution
    assert program in processes.tree(server) and not neighbour.done()
    neighbour.cancel()
    assert processes.server_of(sandbox) == server and sandbox.restarts == 0
    assert sandbox.run("print(1)").stdout == "1\n"


THREADS_THAT_STAY = """
import threading, time
for _ in range(20): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print('left')
"""
FORK_LOOP = """
import os
while True:
    try: os.fork()
    except OSError: pass
"""


@pytest.mark.parametrize(
    ("code", "status"),
    [(THREADS_THAT_STAY, "success"), (FORK_LOOP, "timeout")],
    ids=["threads", "fork-loop"],
)
def test_nothing_outlives_its_run(one_worker, processes, code, status):
    one_worker.run("")
    server = processes.server_of(one_worker)
    execution = one_worker.run(code, timeout=0.5)
    assert execution.status == status, execution
    assert one_worker.run("print(1)").stdout == "1\n"
    # The server, its fork server's two processes, and the children that are held ready.
    processes.settles(server, lambda tree: len(tree) <= 3 + 3)


def test_a_fork_server_is_as_it_was_after_any_run(one_worker, processes):
    one_worker.run("")
    (fork_server,) = processes.fork_servers(processes.server_of(one_worker))

    def state(_):
        mounts = Path(f"/proc/{fork_server}/mounts").read_text()
        return len(os.listdir(f"/proc/{fork_server}/fd")), mounts.count("\n")

    processes.settles(fork_server, lambda tree: len(tree) == 4)
    before = state(None)
    for code in ("print(1)", "1 / 0", "while True: pass", "open('x', 'w')", "bytearray(1 << 30)"):
        for _ in range(3):
            one_worker.run(code, stdin="x", timeout=0.3)
        processes.settles(fork_server, lambda tree: len(tree) == 4 and state(tree) == before)


def test_threads_are_bounded(sandbox):
    code = (
        "import threading, time\n"
        "threading.stack_size(65536)\n"
        "count = 0\n"
        "try:\n"
        "    while count < 1000:\n"
        "        threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
        "        count += 1\n"
        "except RuntimeError: pass\n"
        "print(8 < count < 100)\n"
    )
    assert sandbox.run(code).stdout == "True\n"


@pytest.mark.parametrize(
    "start",
    [
        "from multiprocessing import Pool; Pool(2).map(abs, [1])",
        "from multiprocessing.pool import Pool; Pool(2)",
        "from multiprocessing import Process; Process(target=print).start()",
        "import multiprocessing as m; m.get_context('spawn').Process(target=print).start()",
        "import multiprocessing as m; m.Manager()",
        "from concurrent.futures import ProcessPoolExecutor as P; list(P().map(abs, [1]))",
    ],
)
def test_who_asks_for_a_process_is_told_in_one_line_that_there_are_threads(sandbox, start):
    execution = sandbox.run(start)
    assert execution.status == "error"
    last = execution.stderr.strip().rsplit("\n", 1)[-1]
    assert "processes are not available here, threads are" in last


@pytest.mark.parametrize(
    "pool",
    [
        "multiprocessing.dummy import Pool",
        "multiprocessing.pool import ThreadPool as Pool",
        "concurrent.futures import ThreadPoolExecutor as Pool",
    ],
)
def test_threads_work_under_all_their_names(sandbox, pool):
    program = f"from {pool}\nwith Pool(3) as pool: print(list(pool.map(abs, [-1, -2])))"
    execution = sandbox.run(program)
    assert (execution.status, execution.stdout) == ("success", "[1, 2]\n")


def test_locks_of_multiprocessing_are_those_of_threads(sandbox):
    program = (
        "import multiprocessing as m, threading\n"
        "with m.Lock(), m.RLock(), m.Semaphore(2): pass\n"
        "queue = m.Queue(); queue.put(3); print(queue.get())\n"
        "event = m.Event(); threading.Thread(target=event.set).start(); print(event.wait(60))\n"
    )
    execution = sandbox.run(program)
    assert (execution.status, execution.stdout) == ("success", "3\nTrue\n")


@pytest.mark.parametrize(
    "call",
    [
        "os.fork()",
        "os.system('true') and 1/0",
        "os.execv('/bin/true', ['true'])",
        "__import__('subprocess').run(['true'], check=True)",
        "__import__('multiprocessing').Process(target=print).start()",
        "__import__('socket').socket()",
    ],
)
def test_other_processes_and_sockets_are_refused_with_pythons_own_error(sandbox, call):
    execution = sandbox.run("import os\n" + call)
    assert execution.status == "error"
    assert "Error" in execution.stderr
