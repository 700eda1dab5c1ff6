import os
import threading
import time

import pytest

from ctpo.sandbox import Sandbox
from tests.waiting import eventually


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
        first = [sandbox.submit("import time; time.sleep(999)", timeout=1000) for _ in range(8)]
        eventually(lambda: sandbox.in_flight == 8)
        second = [sandbox.submit("pass") for _ in range(8)]
        assert (sandbox.in_flight, sandbox.waiting) == (8, 8)
        time.sleep(0.2)  # for them to wait at least
        for future in first:
            future.cancel()
        executions = [future.result() for future in second]
    assert {e.status for e in executions} == {"success"}
    assert min(e.queue_seconds for e in executions) >= 0.2


def test_who_comes_first_is_served_first(one_worker):
    order = []
    futures = [one_worker.submit("pass") for _ in range(6)]
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: order.append(number))
    for future in futures:
        future.result()
    one_worker.run("")  # after which all callbacks have run
    assert order == list(range(6))


def test_a_crowd_does_not_keep_a_single_caller_waiting(one_worker):
    # A flow with nothing at work may go beyond the workers, so the crowd holds its own.
    hold = one_worker.submit("import time; time.sleep(999)", timeout=1000.0, flow="crowd")
    order = []
    for name, count in (("crowd", 20), ("single", 1)):
        for _ in range(count):
            future = one_worker.submit("pass", flow=name)
            future.add_done_callback(lambda _, name=name: order.append(name))
    eventually(lambda: order)
    assert order == ["single"]
    hold.cancel()
    eventually(lambda: order, lambda order: len(order) == 21)


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


@pytest.fixture
def one_processor():
    """What is started within shares one processor, so that few programs overload it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.slow
def test_an_overloaded_machine_slows_answers_and_fails_none(one_processor):
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint('done')"
    with Sandbox(workers=32, timeout=1.0, memory_mb=64) as sandbox:
        sandbox.run_many(["pass"] * 64)
        executions = sandbox.run_many([code] * 32)
    assert {e.status for e in executions} == {"success"}
    assert all(e.own_seconds <= e.wall_seconds for e in executions)
    # Without this the machine was not overloaded and nothing was tested.
    assert max(e.wall_seconds for e in executions) > 1.0


@pytest.mark.slow
def test_a_busy_loop_is_ended_by_its_own_time_on_an_overloaded_machine(one_processor):
    with Sandbox(workers=8, timeout=0.5) as sandbox:
        executions = sandbox.run_many(["while True: pass"] * 8)
    assert {e.status for e in executions} == {"timeout"}
    assert all(e.own_seconds >= 0.5 for e in executions)
    # The bound on CPU time; by wall time each would have got a sixteenth of a second.
    assert all(0.1 < e.cpu_seconds < 3.0 for e in executions)


def test_threads_cannot_buy_time_by_waiting_for_each_other(sandbox):
    code = (
        "import threading\n"
        "def burn():\n"
        "    while True: pass\n"
        "for _ in range(20): threading.Thread(target=burn).start()\n"
        "burn()\n"
    )
    execution = sandbox.run(code, timeout=0.3)
    assert execution.status == "timeout"
    assert execution.cpu_seconds < 3.0
