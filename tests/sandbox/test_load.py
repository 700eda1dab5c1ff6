import os
import threading
import time

import pytest

from ctpo.sandbox import Sandbox


@pytest.fixture
def on_one_processor():
    """What is started meanwhile shares one processor, however many the machine has."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_outcomes_come_in_the_order_of_the_programs(sandbox):
    codes = [f"import time; time.sleep({(7 * i % 5) / 50}); print({i})" for i in range(20)]
    assert [e.stdout for e in sandbox.run_many(codes)] == [f"{i}\n" for i in range(20)]
    assert sandbox.run_many([]) == []


def test_each_program_gets_its_own_input(sandbox):
    executions = sandbox.run_many(["print(input())"] * 10, stdin=[str(i) for i in range(10)])
    assert [e.stdout for e in executions] == [f"{i}\n" for i in range(10)]
    assert {e.stdout for e in sandbox.run_many(["print(input())"] * 3, stdin="all")} == {"all\n"}


def test_programs_run_at_once_but_no_more_than_there_are_workers():
    with Sandbox(workers=8) as sandbox:
        sandbox.run_many(["import time; time.sleep(0.1)"] * 8)
        started = time.monotonic()
        executions = sandbox.run_many(["import time; time.sleep(0.5)"] * 16)
        seconds = time.monotonic() - started
    assert {e.status for e in executions} == {"success"}
    # Two rounds at least; one after the other they would take eight seconds.
    assert 1.0 <= seconds < 7.0
    first, second = executions[:8], executions[8:]
    assert max(e.queue_seconds for e in first) < min(e.queue_seconds for e in second)
    assert min(e.queue_seconds for e in second) > 0.4


def test_who_comes_first_is_served_first(one_worker):
    order = []

    def run(number):
        order.append((one_worker.run("import time; time.sleep(0.05)").queue_seconds, number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert [number for _, number in order] == list(range(6))


def test_many_threads_get_their_own_answers(sandbox):
    wrong = []

    def run(number):
        for i in range(10):
            if sandbox.run(f"print({number} * 100 + {i})").stdout != f"{number * 100 + i}\n":
                wrong.append((number, i))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_overloaded_machine_slows_answers_and_fails_none(on_one_processor):
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint('done')"
    with Sandbox(workers=32, timeout=1.0) as sandbox:
        # Every worker has its process, so that the programs below run at once.
        sandbox.run_many(["import time; time.sleep(0.2)"] * 32)
        executions = sandbox.run_many([code] * 32)
    assert {e.status for e in executions} == {"success"}
    # 6.4 seconds of work on one processor: the last waited far longer than its time-out. Without
    # this the machine was not overloaded and nothing was tested.
    assert max(e.wall_seconds for e in executions) > 2.0


def test_a_busy_loop_is_ended_by_its_own_time_on_an_overloaded_machine():
    with Sandbox(workers=8, timeout=0.5) as sandbox:
        executions = sandbox.run_many(["while True: pass"] * 8)
    assert {e.status for e in executions} == {"timeout"}
    assert all(0.1 < e.cpu_seconds < 1.9 for e in executions)


def test_processes_cannot_buy_time_by_waiting_for_each_other(sandbox):
    code = (
        "import os\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        while True: pass\n"
        "while True: pass\n"
    )
    started = time.monotonic()
    execution = sandbox.run(code, timeout=0.3)
    assert execution.status == "timeout"
    # Its share of the CPU alone would let it run for ten times as long.
    assert execution.cpu_seconds < 3.0 and time.monotonic() - started < 10.0
