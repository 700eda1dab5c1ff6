"""The fork server: takes programs from its caller, hands them to cells, ends and answers.

Where the machine allows it, it is the first process of its own pid namespace: whatever it leaves
when it dies, the kernel kills. It never reads a byte that a program wrote, except for the
length-limited answers of sessions.
"""

from __future__ import annotations

import collections
import gc
import os
import socket

from ctpo.sandbox import archive, wire
from ctpo.sandbox.jail.jail import Jail
from ctpo.sandbox.jail.scratch import Scratch
from ctpo.sandbox.server.cleanup import end_everyone
from ctpo.sandbox.server.poller import Watch
from ctpo.sandbox.server.slot import Slot, WardenJob
from ctpo.sandbox.server.workers import Event, Keeper


class Warden:
    """Serves one caller.

    Args:
        jail: How programs are confined.
        proc: Descriptor of /proc, opened before the view was entered.
        connection: To the caller.
    """

    def __init__(self, jail: Jail, proc: int, connection: socket.socket) -> None:
        self._jail = jail
        self._plan = jail.plan
        self._proc = proc
        self._connection = connection
        self._slots = [Slot(i, Scratch(jail.plan, i)) for i in range(jail.plan.slots)]
        self._waiting: collections.deque[WardenJob] = collections.deque()
        self._watch: Watch[Event | None] = Watch()
        self._keeper = Keeper(jail, proc, self._watch, self._answer)

    def try_out(self) -> None:
        """Fork the first cell, and see that it can be jailed and that a program runs.

        Raises:
            OSError: Something could not be done; the message says what and why.
        """
        self._jail.prepare()
        gc.collect()
        gc.freeze()
        self._keeper.try_out(self._slots[0])

    def serve(self) -> None:
        """Run programs until the connection ends."""
        if self._plan.ahead:
            for slot in self._slots[1:]:
                self._keeper.fill(slot)
        self._watch.add(self._connection.fileno(), None)
        try:
            while self._turn():
                pass
        finally:
            end_everyone(self._proc)
            for slot in self._slots:
                slot.scratch.remove()

    def _turn(self) -> bool:
        """Wait for something to happen and deal with it; whether to go on."""
        events = self._watch.wait(self._check_clocks())
        self._keeper.notice([event for event in events if event is not None])
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
            if not left and slot.job.ended is None:
                self._keeper.end(slot, "timeout")
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
                    self._keeper.end_cell(slot)
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
                self._keeper.end(slot, "sandbox-failure")

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
            self._keeper.give(slot, self._waiting.popleft())

    def _place_for(self, job: WardenJob) -> Slot | None:
        session = job.header["session"]
        if session is not None:
            for slot in self._slots:
                if slot.session == session and slot.cell is not None:
                    return slot if slot.ready else None
            if not job.header["first"]:
                raise LookupError("its process is gone, and with it what earlier calls left")
        for slot in self._slots:
            if slot.ready and slot.session is None and slot.cell and not slot.cell.has_ended():
                return slot
        if not self._plan.ahead:
            starting = any(s.cell and not s.ready and s.session is None for s in self._slots)
            empty = next((s for s in self._slots if s.cell is None), None)
            if empty is not None and not starting:
                self._keeper.fill(empty)
        return None

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
