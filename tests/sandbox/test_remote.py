"""A pool that is used from another process, over a connection."""

import asyncio
import socket

import pytest

from ctpo.sandbox.http.remote import RemoteSandbox, serve_pool


def over_a_connection(sandbox, use):
    """What `use` gives of a client of a sandbox; both in this process."""

    async def main():
        ours, theirs = socket.socketpair()
        pool = asyncio.create_task(serve_pool(sandbox, ours))
        remote = RemoteSandbox(theirs)
        try:
            return await asyncio.wait_for(use(remote, pool), 120)
        finally:
            await remote.close()
            await asyncio.gather(pool, return_exceptions=True)

    return asyncio.run(main())


def test_answers_are_those_of_the_pool(sandbox):
    async def use(remote, pool):
        return await asyncio.gather(
            remote.arun("print(input(), open('f').read())", stdin="in", files={"f": b"file"}),
            remote.arun("open('g', 'wb').write(b'\\xff')", collect=["g"]),
            remote.statistics(),
        )

    first, second, statistics = over_a_connection(sandbox, use)
    assert first.stdout == "in file\n" and second.files == {"g": b"\xff"}
    assert statistics["workers"] == sandbox.workers


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"timeout": 0.0}, {"collect": ["/etc/passwd"]}])
def test_a_program_that_is_none_is_not_sent(sandbox, wrong):
    async def use(remote, pool):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}|path"):
            await remote.arun("print(1)", **wrong)

    over_a_connection(sandbox, use)


def test_a_request_that_the_pool_refuses_is_answered_too(sandbox):
    async def use(remote, pool):
        return await remote.arun("print(1)", memory_mb=1 << 20), await remote.arun("print(2)")

    refused, next_one = over_a_connection(sandbox, use)
    assert refused.status == "sandbox-failure" and "ValueError" in str(refused.failure)
    assert next_one.stdout == "2\n"


def test_a_pool_that_is_gone_fails_what_waits_and_what_comes(sandbox):
    async def use(remote, pool):
        waiting = asyncio.create_task(remote.arun("import time; time.sleep(999)", timeout=1000.0))
        while not (await remote.statistics())["in_flight"]:
            await asyncio.sleep(0.01)  # at most as long as `over_a_connection` waits
        pool.cancel()
        return await waiting, await remote.arun("print(1)")

    for execution in over_a_connection(sandbox, use):
        assert execution.status == "sandbox-failure" and "the pool is gone" in execution.failure
