"""The fork server: keeps jailed children ready, hands them programs, ends and replaces them.

Where the machine allows it, it is the first process of its own pid namespace: whatever it leaves
when it dies, the kernel kills. It never reads a byte that a program wrote, except for the
length-limited answers of sessions.
"""

from __future__ import annotations

import array
import collections
import contextlib
import gc
import os
import resource
import select
import signal
import socket

from ctpo.sandbox import archive, kernel, wire
from ctpo.sandbox.cleanup import end_everyone
from ctpo.sandbox.clock import Clock, read
from ctpo.sandbox.execution import Status, cpu_budget_seconds
from ctpo.sandbox.inmate import CALL, CALLED, JOB, PROGRAM, READY, REUSED, Inmate
from ctpo.sandbox.jail import Jail
from ctpo.sandbox.plan import COLLECTED_BYTES
from ctpo.sandbox.program import OUT_OF_MEMORY
from ctpo.sandbox.scratch import Scratch
from ctpo.sandbox.slot import Slot, WardenJob, has_ended, peak_memory

_MOST_FAILURES = 5
_ANSWER_BYTES = 256
_START_SECONDS = 30.0


class Warden:
    """Serves one caller.

    Args:
        jail: How children are confined.
        proc: Descriptor of /proc, opened before the view was entered.
        connection: To the caller.
    """

    def __init__(self, jail: Jail, proc: int, connection: socket.socket) -> None:
        self._jail = jail
        self._plan = jail.plan
        self._proc = proc
        self._inmate = Inmate(jail, proc)
        self._connection = connection
        self._slots = [Slot(i, Scratch(jail.plan, i)) for i in range(jail.plan.slots)]
        self._waiting: collections.deque[WardenJob] = collections.deque()
        self._events: dict[int, Slot] = {}
        self._poll = select.poll()
        self._failures = 0

    def try_out(self) -> None:
        """Fork the first child and see that its jail can be shut.

        Raises:
            OSError: It could not; the message says why.
        """
        self._jail.prepare()
        gc.collect()
        gc.freeze()
        slot = self._slots[0]
        self._fork(slot)
        assert slot.link is not None
        slot.link.settimeout(_START_SECONDS)
        self._hear(slot)
        if not slot.ready:
            raise OSError(slot.failure or "the first child ended before it was ready")
        slot.link.settimeout(None)

    def serve(self) -> None:
        """Run programs until the connection ends."""
        if self._plan.ahead:
            for slot in self._slots[1:]:
                self._fork(slot)
        self._poll.register(self._connection, select.POLLIN)
        try:
            while self._turn():
                pass
        finally:
            end_everyone(self._proc)
            for slot in self._slots:
                slot.scratch.remove()

    def _turn(self) -> bool:
        """Wait for something to happen and deal with it; whether to go on."""
        left = self._check_clocks()
        ready = self._poll.poll(left * 1000 if left is not None else None)
        # Looked up before any is closed, since a new one may get the same number.
        events = [(self._events[d], d) for d, _ in ready if d in self._events]
        ended = {slot.number: slot for slot, d in events if d == slot.process}
        # Ended children first: what they leave is free for what comes.
        for slot in ended.values():
            self._bury(slot)
        for slot, _ in events:
            if slot.number not in ended:
                self._hear(slot)
        if any(descriptor == self._connection.fileno() for descriptor, _ in ready):
            try:
                self._take(*wire.receive(self._connection))
            except (EOFError, ConnectionError):
                return False
        self._hand_out()
        if self._failures > _MOST_FAILURES:
            raise OSError("children do not get ready any more")
        return True

    def _check_clocks(self) -> float | None:
        nearest = None
        for slot in self._slots:
            if slot.clock is None or slot.job is None:
                continue
            left = slot.clock.left_seconds()
            if not left and slot.job.ended is None:
                self._end(slot, "timeout")
            elif left and (nearest is None or left < nearest):
                nearest = left
        return nearest

    def _take(self, header: wire.Header, descriptors: list[int]) -> None:
        job = WardenJob(header, descriptors)
        if "cancel" in header:
            self._cancel(header["cancel"])
        elif "end" in header:
            for slot in self._slots:
                if slot.session == header["end"]:
                    self._kill(slot)
        else:
            self._waiting.append(job)

    def _cancel(self, number: int) -> None:
        for job in list(self._waiting):
            if job.header["id"] == number:
                self._waiting.remove(job)
                job.close()
                self._answer(job, {"status": "sandbox-failure", "failure": "cancelled"})
        for slot in self._slots:
            if slot.job is not None and slot.job.header["id"] == number:
                self._end(slot, "sandbox-failure")

    def _hand_out(self) -> None:
        while self._waiting:
            try:
                slot = self._place_for(self._waiting[0])
            except LookupError:
                job = self._waiting.popleft()
                job.close()
                self._answer(job, {"status": "error", "over": True})
                continue
            if slot is None:
                return
            self._give(slot, self._waiting.popleft())

    def _place_for(self, job: WardenJob) -> Slot | None:
        session = job.header["session"]
        if session is not None:
            for slot in self._slots:
                if slot.session == session and slot.pid:
                    return slot if slot.ready else None
            if not job.header["first"]:
                raise LookupError("its process is gone, and with it what earlier calls left")
        for slot in self._slots:
            if slot.ready and slot.session is None and not has_ended(slot.process):
                return slot
        if not self._plan.ahead:
            starting = any(s.pid and not s.ready and s.session is None for s in self._slots)
            empty = next((s for s in self._slots if not s.pid), None)
            if empty is not None and not starting:
                self._fork(empty)
        return None

    def _give(self, slot: Slot, job: WardenJob) -> None:
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
        slot.clock = Clock(
            self._proc,
            slot.pid,
            slot.proc_pid,
            1e5 if "time-out" in self._plan.without else header["timeout"],
            descendants=self._jail.filter is None,
        )
        assert slot.link is not None
        try:
            # Not `send_fds`, which forgets its flags.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", job.descriptors))
            slot.link.sendmsg([message], [rights], socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._end(slot, "error")  # a session that answers for its calls and reads none
        except OSError:
            pass  # it has just died, which its descriptor will tell
        if kind != PROGRAM:
            self._listen(slot)
        job.close()

    def _fork(self, slot: Slot) -> None:
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
            self._inmate.live(slot.steps, theirs)
        theirs.close()
        slot.pid, slot.link, slot.ready, slot.failure = pid, ours, False, None
        slot.process = os.pidfd_open(pid)
        self._events[slot.process] = slot
        self._poll.register(slot.process, select.POLLIN)
        self._listen(slot)

    def _listen(self, slot: Slot) -> None:
        """Wait for one message of a child's; what it says unasked is left unread."""
        assert slot.link is not None
        self._events[slot.link.fileno()] = slot
        self._poll.register(slot.link, select.POLLIN)

    def _hear(self, slot: Slot) -> None:
        """Read the one message that a child may send now; it may be hostile."""
        assert slot.link is not None
        self._poll.unregister(slot.link)
        self._events.pop(slot.link.fileno())
        message = b""
        with contextlib.suppress(OSError):
            message = slot.link.recv(_ANSWER_BYTES)
        if slot.job is None:
            if len(message) == READY.size:
                (slot.proc_pid,) = READY.unpack(message)
                slot.ready, self._failures = True, 0
            else:
                slot.failure = message.decode(errors="replace") or "it ended before it was ready"
        elif len(message) == CALLED.size:
            code, out_of_memory = CALLED.unpack(message)
            self._called(slot, code, bool(out_of_memory))
        else:
            self._end(slot, "error")

    def _called(self, slot: Slot, code: int, out_of_memory: bool) -> None:
        """A session's call has ended and its process lives on."""
        job, clock = slot.job, slot.clock
        assert job is not None and clock is not None
        slot.job = slot.clock = None
        slot.ready = True
        status: Status = "memory" if out_of_memory else "success" if code == 0 else "error"
        self._report(slot, job, clock, status, code, peak=peak_memory(self._proc, slot.proc_pid))

    def _end(self, slot: Slot, why: Status) -> None:
        if slot.job is not None and slot.job.ended is None:
            slot.job.ended = why
        self._kill(slot)

    def _kill(self, slot: Slot) -> None:
        if slot.pid:
            os.kill(slot.pid, signal.SIGKILL)

    def _bury(self, slot: Slot) -> None:
        """A child has ended: report, clean up, put the next in its place."""
        job, clock = slot.job, slot.clock
        measured = clock.measured() if clock is not None else None
        _, status, usage = os.wait4(slot.pid, 0)
        if self._jail.filter is None:
            end_everyone(self._proc)  # it could fork; this server has one slot
        self._forget(slot)
        if job is None:
            if slot.session is None:
                self._failures += 1  # it ended before it got work
        elif clock is not None and measured is not None:
            code = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * 1024
            ended = job.ended or self._verdict(code, peak, measured[2], job.header)
            self._report(slot, job, clock, ended, code, peak=peak, measured=measured, over=True)
        slot.job = slot.clock = slot.session = None
        if self._plan.ahead:
            self._fork(slot)
        else:
            slot.scratch.remove()

    def _forget(self, slot: Slot) -> None:
        assert slot.link is not None
        for descriptor in (slot.process, slot.link.fileno()):
            if self._events.pop(descriptor, None) is not None:
                self._poll.unregister(descriptor)
        os.close(slot.process)
        slot.link.close()
        slot.pid, slot.process, slot.proc_pid = 0, -1, -1
        slot.link, slot.ready = None, False

    def _report(
        self,
        slot: Slot,
        job: WardenJob,
        clock: Clock,
        status: Status,
        code: int,
        *,
        peak: int,
        measured: tuple[float, float, float] | None = None,
        over: bool = False,
    ) -> None:
        wall, own, cpu = measured if measured is not None else clock.measured()
        files = archive.collect(slot.scratch.path, job.header["collect"], COLLECTED_BYTES)
        answer = {
            "status": status,
            "return_code": code if status in ("success", "error") else None,
            "wall_seconds": wall,
            "own_seconds": own,
            "cpu_seconds": cpu,
            "peak_memory_bytes": peak,
            "failure": (job.ended and "cancelled") or "its process was killed from outside"
            if status == "sandbox-failure"
            else None,
            "over": over,
        }
        self._answer(job, answer, files)

    def _answer(
        self, job: WardenJob, answer: wire.Header, files: dict[str, bytes] | None = None
    ) -> None:
        descriptors = []
        if files:
            descriptors.append(os.memfd_create("ctpo-files", os.MFD_CLOEXEC))
            with open(descriptors[0], "wb", closefd=False) as file:
                file.write(archive.pack(files))
        try:
            wire.send(self._connection, {"id": job.header["id"], **answer}, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _most_memory(self, header: wire.Header) -> int:
        """What a program can use at most; with a low limit, what it started with counts."""
        if header["memory_bytes"] is None:
            return self._plan.memory_bytes
        resident = int(read(self._proc, "self/statm").split()[1]) * resource.getpagesize()
        return min(self._plan.memory_bytes, resident + int(header["memory_bytes"]))

    def _verdict(self, code: int, peak: int, cpu: float, header: wire.Header) -> Status:
        if code == -OUT_OF_MEMORY:
            return "memory"
        if code == -signal.SIGXCPU:
            return "timeout"
        crashed = code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGKILL)
        if crashed and peak > 0.9 * self._most_memory(header):
            # Native code takes a refused allocation badly, and the kernel kills when it has none.
            return "memory"
        if code == -signal.SIGKILL and self._jail.filter is not None:
            # It cannot send itself this one: the limit on CPU time did, or somebody outside.
            return "timeout" if cpu > cpu_budget_seconds(header["timeout"]) else "sandbox-failure"
        return "success" if code == 0 else "error"
