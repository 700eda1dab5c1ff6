"""Nothing that a caller asks for ends, blocks or stalls a fork server."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpo.sandbox import Program, Sandbox
from ctpo.sandbox.jail.plan import SCRATCH_INODES

names = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["a", "a/", "a/b", "./a", "a//b", ".", "", "..", "a/.", "x" * 255, "x" * 300]),
    st.integers(1, 700).map(lambda depth: "a/" * depth + "b"),
)
anything = st.fixed_dictionaries(
    {"code": st.sampled_from(["print(1)", "open('a', 'w')", "\0", "\ud800", "x" * 100_000])},
    optional={
        "stdin": st.one_of(st.text(max_size=9), st.just("x" * 300_000), st.just("\ud800")),
        "files": st.dictionaries(names, st.sampled_from([b"", b"x", b"x" * 70_000]), max_size=5),
        "collect": st.one_of(
            st.lists(names, max_size=5),
            st.integers(0, 5000).map(lambda n: list(map(str, range(n)))),
        ),
        "timeout": st.one_of(
            st.sampled_from([1e-9, 0.5, 1.0, 1e9, 1e300, float("nan")]), st.floats(0.2, 2.0)
        ),
        "memory_mb": st.sampled_from([-1, 1, 50, 128, 129, 1 << 70]),
        "seed": st.sampled_from([-1, 0, 7, (1 << 32) - 1, 1 << 32]),
    },
)


@pytest.fixture(scope="module")
def asked() -> Iterator[Sandbox]:
    with Sandbox(workers=2, memory_mb=128) as started:
        yield started


@given(fields=anything)
@settings(max_examples=60, deadline=None)
def test_every_request_is_refused_or_answered_and_harms_nobody(asked, fields):
    neighbour = asked.submit("print(7)", timeout=20.0)
    try:
        execution = asked.submit(**fields).result(60)
    except (TypeError, ValueError):
        pass
    else:
        assert execution.status != "sandbox-failure", (fields, execution)
    assert neighbour.result(60).stdout == "7\n"
    assert asked._dispatcher._connections[0].usable and asked.restarts == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"collect": ["a", "a"]}, "collect"),
        ({"collect": ["a", "./a"]}, "collect"),
        ({"collect": list(map(str, range(SCRATCH_INODES + 1)))}, "collect"),
        ({"collect": [f"{i}/" + "x" * 200 for i in range(3000)]}, "collect"),
        ({"files": {"a": b"", "./a": b""}}, "files"),
        ({"files": {"a/": b""}}, "files"),
        ({"files": {"é" * 600: b""}}, "path"),
        ({"files": {"\ud800": b""}}, "files"),
        ({"timeout": 1e9}, "timeout"),
    ],
)
def test_what_is_too_much_is_refused_by_name(fields, field):
    with pytest.raises(ValueError, match=field):
        Program("", **fields)


def test_as_many_files_as_may_be_are_collected(asked):
    wanted = [f"d{i % 9}/{'x' * 40}{i}" for i in range(SCRATCH_INODES - 20)]
    code = (
        "import os\nfor i in range(9): os.mkdir(f'd{i}')\n"
        f"for i in range({len(wanted)}): open(f'd{{i % 9}}/{'x' * 40}{{i}}', 'w').write(str(i))"
    )
    execution = asked.run(code, collect=wanted, timeout=20.0)
    assert execution.status == "success", execution
    assert execution.files == {name: str(i).encode() for i, name in enumerate(wanted)}


def test_collecting_holds_up_nobody(asked):
    """While files of one program are copied, its neighbours' programs are answered."""
    wanted = [f"{i}" for i in range(3500)]
    code = "for i in range(3500): open(str(i), 'wb').write(b'x' * 4000)"
    slow = [asked.submit(code, collect=wanted, timeout=30.0) for _ in range(6)]
    waits = []
    while not all(future.done() for future in slow):
        began = time.monotonic()
        assert asked.run("print(1)", timeout=30.0).stdout == "1\n"
        waits.append(time.monotonic() - began)
    assert {future.result().status for future in slow} == {"success"}
    assert max(len(future.result().files) for future in slow) == 3500
    assert len(waits) > 3, "neighbours got their answers meanwhile"


# Prints how often a word is in the memory that it was forked with, up to the end of its heap.
SEARCH = """
import ctypes
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
page, memory, flag = 4096, [], ctypes.create_string_buffer(1)
address = libc.sbrk(0) - page
while libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(page), flag) == 0:
    memory.insert(0, ctypes.string_at(address, page))
    address -= page
word = bytes(reversed({backwards!r}))
print(len(memory) > 256, b"".join(memory).count(word))
"""


def test_what_is_collected_is_in_no_later_programs_memory(one_worker):
    word = f"{time.monotonic_ns()}-collected"
    code = f"open('x', 'w').write({word!r} + 'z' * 60_000)"
    assert one_worker.run(code, collect=["x"]).files["x"].startswith(word.encode())
    search = SEARCH.format(backwards=(word + "zzz").encode()[::-1])
    answer = one_worker.run(search, timeout=20.0)
    assert answer.stdout == "True 0\n", answer
