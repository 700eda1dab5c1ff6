"""The fork server: takes programs from its caller, hands them to workers, ends and answers.

Where the machine allows it, it is the first process of its own pid namespace: whatever it leaves
when it dies, the kernel kills. It never reads a byte that a program wrote, except for the
length-limited answers of sessions.
"""

from __future__ import annotations

import collections
import gc
import socket
import time
from collections.abc import Sequence

from ctpo.sandbox import wire
from ctpo.sandbox.jail.jail import Jail
from ctpo.sandbox.jail.scratch import Scratch
from ctpo.sandbox.server.cleanup import end_everyone
from ctpo.sandbox.server.poller import Poller
from ctpo.sandbox.server.slot import Slot, Task
from ctpo.sandbox.server.workers import Event, Workers

# How often the memory is looked at that the kernel needs for a program.
_LOOK_SECONDS = 0.1


class ForkServer:
    """Serves one caller.

    Args:
        jail: How programs are confined.
        proc: Descriptor of /proc, opened before the file tree was entered.
        connection: To the caller.
    """

    def __init__(self, jail: Jail, proc: int, connection: socket.socket) -> None:
        self._jail = jail
        self._plan = jail.plan
        self._proc = proc
        self._connection = connection
        self._slots = [Slot(i, Scratch(jail.plan, i)) for i in range(jail.plan.slots)]
        self._waiting: collections.deque[Task] = collections.deque()
        self._poller: Poller[Event | None] = Poller()
        self._workers = Workers(jail, proc, self._poller, self._answer)

    def try_out(self) -> None:
        """Fork the first worker, and see that it can be jailed and that a program runs.

        Raises:
            OSError: Something could not be done; the message says what and why.
        """
        self._jail.prepare()
        gc.collect()
        gc.freeze()
        self._workers.try_out(self._slots[0])

    def serve(self) -> None:
        """Run programs until the connection ends."""
        if self._plan.ahead:
            for slot in self._slots[1:]:
                self._workers.fill(slot)
        self._poller.add(self._connection.fileno(), None)
        try:
            while self._turn():
                pass
        finally:
            end_everyone(self._proc)  # their mounts go with them, and the zygote deletes the rest

    def _turn(self) -> bool:
        """Wait for something to happen and deal with it; whether to go on."""
        events = self._poller.wait(self._check_clocks())
        self._workers.handle([event for event in events if event is not None])
        if None in events:
            try:
                self._take(*wire.receive(self._connection))
            except (EOFError, ConnectionError):
                return False
        self._hand_out()
        return True

    def _check_clocks(self) -> float | None:
        """End the programs whose time is up; seconds until the next look, if one is due."""
        nearest = None
        for slot in self._slots:
            if slot.clock is None or slot.job is None:
                continue
            left = slot.clock.left_seconds()
            if slot.job.ended is None and self._too_many_page_tables(slot):
                self._workers.end(slot, "memory")
            elif not left and slot.job.ended is None:
                self._workers.end(slot, "timeout")
            if left:
                left = min(left, _LOOK_SECONDS)
            if left and (nearest is None or left < nearest):
                nearest = left
        return nearest

    def _too_many_page_tables(self, slot: Slot) -> bool:
        """Whether a program that has run for a while scatters its memory, which no limit counts."""
        assert slot.clock is not None and slot.program is not None
        if time.monotonic() - slot.clock.started < _LOOK_SECONDS:
            return False
        return slot.program.page_tables(self._proc) > self._plan.most_page_table_bytes

    def _take(self, header: wire.Header, descriptors: list[int]) -> None:
        if "cancel" in header:
            self._cancel(header["cancel"])
        elif "end" in header:
            for slot in self._slots:
                if slot.session == header["end"]:
                    self._workers.end_worker(slot)
        else:
            self._waiting.append(Task.of(header, descriptors))

    def _cancel(self, number: int) -> None:
        for job in list(self._waiting):
            if job.header["id"] == number:
                self._waiting.remove(job)
                job.close()
                self._answer(job, {"status": "sandbox-failure", "failure": "cancelled"})
        for slot in self._slots:
            if slot.job is not None and slot.job.header["id"] == number:
                self._workers.end(slot, "sandbox-failure")

    def _hand_out(self) -> None:
        while self._waiting:
            try:
                slot = self._slot_for(self._waiting[0])
            except LookupError:
                job = self._waiting.popleft()
                job.close()
                self._answer(job, {"status": "error", "over": True})
                continue
            if slot is None:
                return
            self._workers.give(slot, self._waiting.popleft())

    def _slot_for(self, job: Task) -> Slot | None:
        session = job.header["session"]
        if session is not None:
            for slot in self._slots:
                if slot.session == session and slot.worker is not None:
                    return slot if slot.ready else None
            if not job.header["first"]:
                raise LookupError("its process is gone, and with it what earlier calls left")
        for slot in self._slots:
            if slot.ready and slot.session is None and slot.worker and not slot.worker.has_ended():
                return slot
        if not self._plan.ahead:
            starting = any(s.worker and not s.ready and s.session is None for s in self._slots)
            empty = next((s for s in self._slots if s.empty), None)
            if empty is not None and not starting:
                self._workers.fill(empty)
        return None

    def _answer(self, job: Task, answer: wire.Header, files: Sequence[int] = ()) -> None:
        wire.send(self._connection, {"id": job.header["id"], **answer}, files)
