"""Keeps workers in a fork server's slots, gives them programs, and reaps them."""

from __future__ import annotations

import array
import contextlib
import math
import os
import signal
import socket

from ctpo.sandbox import wire
from ctpo.sandbox.execution import Status
from ctpo.sandbox.jail import kernel
from ctpo.sandbox.jail.jail import Jail
from ctpo.sandbox.server.cleanup import end_everyone
from ctpo.sandbox.server.clock import Clock
from ctpo.sandbox.server.helpers import start_deleting
from ctpo.sandbox.server.poller import Poller
from ctpo.sandbox.server.reports import Reports, Tell
from ctpo.sandbox.server.slot import Event, Process, Slot, Task
from ctpo.sandbox.server.verdict import report
from ctpo.sandbox.server.worker import CALL, CALLED, JOB, PROGRAM, READY, REUSED, STARTED, Worker

_MOST_FAILURES = 5
_ANSWER_BYTES = 256
_START_SECONDS = 30.0


class Workers:
    """Looks after slots.

    Args:
        jail: How workers are confined.
        proc: Descriptor of /proc, opened before the file tree was entered.
        poller: Where to have their descriptors waited for.
        tell: Takes a job, its answer and descriptors of an archive of files, if any.
    """

    def __init__(self, jail: Jail, proc: int, poller: Poller[Event | None], tell: Tell) -> None:
        self._jail = jail
        self._plan = jail.plan
        self._proc = proc
        self._poller = poller
        self._reports = Reports(jail, proc, poller, tell)
        self._worker = Worker(jail, proc)
        self._failures = 0

    def try_out(self, slot: Slot) -> None:
        """Fork the first worker, and see that it can be jailed and that a program runs.

        Raises:
            OSError: Something could not be done; the message says what and why.
        """
        self.fill(slot)
        assert slot.link is not None
        slot.link.settimeout(_START_SECONDS)
        self._read_message(slot)
        if not slot.ready:
            raise OSError(slot.failure or "the first worker ended before it was ready")
        if self._plan.ahead and "fresh-process" not in self._plan.without:
            self.give(slot, Task.empty(_START_SECONDS))
            self._read_message(slot)
            if slot.program is None:
                raise OSError(slot.failure or "the first program did not start")
            if status := os.waitpid(slot.program.pid, 0)[1]:
                raise OSError(f"the first program, an empty one, ended with {status}")
            self._poller.close(slot.program)
            slot.job = slot.clock = slot.program = None
            slot.ready = True
        slot.link.settimeout(None)

    def fill(self, slot: Slot) -> None:
        """Fork a worker into an empty slot."""
        if slot.scratch.renew():
            if slot.ruleset >= 0:
                os.close(slot.ruleset)
            slot.ruleset = self._jail.ruleset(slot.number, slot.scratch)
            slot.steps = self._jail.steps(slot.number, slot.scratch, slot.ruleset)
        ours, theirs = wire.pair()
        assert slot.steps is not None
        slot.steps.keep(theirs.fileno())
        pid = kernel.fork()
        if pid == 0:
            self._worker.start(slot.steps, theirs)
        theirs.close()
        slot.worker, slot.link, slot.ready, slot.failure = Process(pid), ours, False, None
        self._poller.add(slot.worker.end, Event(slot, slot.worker))
        self._expect_message(slot)

    def give(self, slot: Slot, job: Task) -> None:
        """Have a worker that is ready run a program."""
        assert slot.worker is not None and slot.link is not None
        header = job.header
        slot.ready = False
        slot.job, slot.session = job, header["session"]
        kind = PROGRAM if slot.session is None else CALL
        if "fresh-process" in self._plan.without:
            kind = REUSED
        memory = header["memory_bytes"]
        message = JOB.pack(
            header["timeout"],
            self._jail.base_space + memory if memory is not None else 0,
            header["seed"],
            kind,
            header["echo"],
            "stdin" in header["given"],
            "files" in header["given"],
        )
        if kind != PROGRAM:
            self._runs_in(slot, slot.worker)
        try:
            # Not `send_fds`, which forgets its flags.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", job.descriptors))
            slot.link.sendmsg([message], [rights], socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.end(slot, "error")  # a session that answers for its calls and reads none
        except OSError:
            pass  # it has just died, which its descriptor will tell
        self._expect_message(slot)
        if kind == PROGRAM:
            job.close_given()
        else:
            slot.worker.signal(signal.SIGCONT)

    def end(self, slot: Slot, why: Status) -> None:
        """End a slot's program, which then is reported to have ended so."""
        assert slot.job is not None
        if slot.job.ended is None:
            slot.job.ended = why
        if slot.program is not None:
            slot.program.kill()

    def end_worker(self, slot: Slot) -> None:
        """End a slot's worker, and what runs in it; its end brings the next where that is due."""
        if slot.worker is not None:
            slot.worker.kill()

    def handle(self, events: list[Event]) -> None:
        """Deal with what happened to slots.

        Raises:
            OSError: Workers do not get ready any more.
        """
        # Ended processes first: what they leave is free for what comes, and what they said is void.
        events.sort(key=lambda e: (e.source is not e.slot.program, e.source is not e.slot.worker))
        for slot, source in events:
            if source is slot.worker:
                self._worker_ended(slot)
            elif source is slot.program:
                self._program_ended(slot)
                self._free(slot)
            elif slot.collecting is not None and source is slot.collecting.process:
                self._reports.collected(slot)
                self._free(slot)
            elif source is slot.cleaning:
                self._cleaned(slot)
            elif source is slot.link:
                self._read_message(slot)
        if self._failures > _MOST_FAILURES:
            raise OSError("children do not get ready any more")

    def _expect_message(self, slot: Slot) -> None:
        """Wait for one message of a worker's; what it says unasked is left unread."""
        assert slot.link is not None
        self._poller.add(slot.link.fileno(), Event(slot, slot.link))

    def _read_message(self, slot: Slot) -> None:
        """Read the one message that a worker may send now; in a session it may be hostile."""
        assert slot.link is not None
        self._poller.drop(slot.link.fileno())
        message = b""
        with contextlib.suppress(OSError):
            message = slot.link.recv(_ANSWER_BYTES)
        if slot.job is None:
            assert slot.worker is not None
            if len(message) == READY.size:
                (slot.worker.proc_pid,) = READY.unpack(message)
                slot.ready, self._failures = True, 0
            else:
                slot.failure = message.decode(errors="replace") or "it ended before it was ready"
        elif slot.program is None:
            self._started(slot, message)
        elif len(message) == CALLED.size:
            self._called(slot, *CALLED.unpack(message))
        else:
            self.end(slot, "error")

    def _started(self, slot: Slot, message: bytes) -> None:
        """A worker has forked a program's process, or could not."""
        assert slot.job is not None
        if len(message) != STARTED.size:
            slot.failure = message.decode(errors="replace")
            self.end_worker(slot)
            return
        pid, started = STARTED.unpack(message)
        program = Process(pid)
        program.look_up(self._proc)
        self._runs_in(slot, program, started)
        self._poller.add(program.end, Event(slot, program))
        if slot.job.ended is not None:
            self.end(slot, slot.job.ended)  # it was cancelled meanwhile

    def _runs_in(self, slot: Slot, process: Process, started: float | None = None) -> None:
        assert slot.job is not None
        slot.program = process
        slot.clock = Clock(
            self._proc,
            process.pid,
            process.proc_pid,
            1e5 if "time-out" in self._plan.without else slot.job.header["timeout"],
            descendants=self._jail.filter is None,
            started=started,
        )

    def _called(self, slot: Slot, code: int, out_of_memory: int) -> None:
        """A session's call has ended; its process is stopped until the next one."""
        assert slot.program is not None and slot.clock is not None and slot.job is not None
        slot.program.signal(signal.SIGSTOP)
        peak, measured = slot.program.peak_memory(self._proc), slot.clock.measured()
        status: Status = "memory" if out_of_memory else "success" if code == 0 else "error"
        self._reports.finish(slot, report(slot.job, status, code, peak, measured, over=False))
        self._free(slot)

    def _program_ended(self, slot: Slot) -> None:
        """Reap a program's process and report."""
        program, clock, job = slot.program, slot.clock, slot.job
        assert program is not None and clock is not None and job is not None
        measured, cpu_limit = clock.measured(), math.inf
        if program.was_killed():
            cpu_limit = program.cpu_limit(self._proc)
        _, status, usage = os.wait4(program.pid, 0)
        if program is not slot.worker:
            self._poller.close(program)
        if self._jail.filter is None:
            end_everyone(self._proc)  # it could fork; this server has one slot
        code = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss * 1024
        ended = job.ended or self._reports.verdict(job, code, peak, measured[2], cpu_limit)
        self._reports.finish(slot, report(job, ended, code, peak, measured, over=True))

    def _cleaned(self, slot: Slot) -> None:
        """A scratch directory has been deleted, as far as it could be; the next is a new one."""
        process, slot.cleaning = slot.cleaning, None
        assert process is not None
        os.wait4(process.pid, 0)
        self._poller.close(process)
        slot.scratch.forget()
        self._refill(slot)

    def _free(self, slot: Slot) -> None:
        """Have the worker wait for the next program, or make room for another one."""
        if slot.collecting is not None:
            return
        if slot.worker is None:
            self._refill(slot)
        elif slot.session is not None or "fresh-process" in self._plan.without:
            slot.ready = True
        elif self._jail.filter is not None:  # else it was ended with everyone
            slot.ready = slot.scratch.untouched
            if not slot.ready:
                self.end_worker(slot)

    def _refill(self, slot: Slot) -> None:
        """Put a new worker into a slot, where one is due, and a scratch directory under it."""
        left = slot.scratch.left
        if left is not None:
            slot.cleaning = start_deleting(left)
            self._poller.add(slot.cleaning.end, Event(slot, slot.cleaning))
        elif self._plan.ahead:
            self.fill(slot)
        else:
            slot.scratch.remove()

    def _worker_ended(self, slot: Slot) -> None:
        """Reap a worker, end and report what ran in it, and put the next in its place."""
        worker = slot.worker
        assert worker is not None and slot.link is not None
        if slot.program is worker:
            self._program_ended(slot)
        else:
            # Its program is of its process group, which it cannot leave; so is one that it had no
            # time to tell of. If it has been reaped with everyone else, the number is not its own.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                worker.has_ended()
                os.killpg(worker.pid, signal.SIGKILL)
            if slot.program is not None:
                self._program_ended(slot)
            with contextlib.suppress(ChildProcessError):
                os.wait4(worker.pid, 0)
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.wait4(-worker.pid, 0)
        if slot.job is None:
            self._failures += not worker.proc_pid  # it was never ready
        elif slot.collecting is None:
            why = slot.failure or (
                "cancelled" if slot.job.ended else "its worker was killed from outside"
            )
            self._reports.settle(slot, {"status": "sandbox-failure", "failure": why})
        self._poller.drop(slot.link.fileno())
        slot.link.close()
        self._poller.close(worker)
        slot.worker = slot.link = slot.session = None
        slot.ready = False
        self._free(slot)
