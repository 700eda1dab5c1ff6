"""Sequences cut along their length over ranks: what one process computes on whole sequences."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctpo.objective import PRESETS

pytestmark = pytest.mark.slow

WORLDS = (2, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scale_of):
    """Where the processes wrote, once each had compared its part of every batch with the whole."""
    folder = tmp_path_factory.mktemp("shards")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # the machine's name may not resolve
    program = str(Path(__file__).with_name("sharded_run.py"))
    scales = json.dumps({name: scale_of(name) for name in PRESETS})
    done = subprocess.run(
        [sys.executable, program, str(folder), scales, *map(str, WORLDS)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(params=WORLDS)
def ranks(request, folder):
    """What each of so many processes says."""
    return [
        json.loads((folder / f"{request.param}-{rank}.json").read_text())
        for rank in range(request.param)
    ]


def test_parts_equal_the_whole_for_every_method(ranks):
    """Losses, gradients and statistics; see `compare` in the program."""
    for said in ranks:
        assert said["compared"][: len(PRESETS)] == list(PRESETS)
        assert len(said["compared"]) == len(PRESETS) + 6


def test_edges_that_are_not_global_raise(ranks):
    size = 36 // len(ranks)
    for said in ranks:
        message = said["refused"][0]
        assert f"cu_seqlens ends at {size}; over {len(ranks)} ranks with {size} tokens" in message
        assert "must be global and end at 36" in message


def test_a_list_is_not_cut_over_ranks(ranks):
    for said in ranks:
        assert said["refused"][1].startswith("a list holds whole sequences; process_group is for")
