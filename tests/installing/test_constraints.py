"""The sets of versions agree with what they are for."""

from importlib import metadata, util

import pytest
from packaging.requirements import Requirement

from tests.installing.extras import ROOT, requirements


def constraints(name):
    lines = (ROOT / name).read_text().splitlines()
    found = [
        Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()
    ]
    return {one.name.lower().replace("_", "-"): one.specifier for one in found}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-gpu.txt"])
def test_constraints_lie_within_what_the_extras_accept(file):
    pinned, seen = constraints(file), 0
    for extra in ("train", "verl"):
        for wanted in map(Requirement, requirements(extra)):
            for one in pinned.get(wanted.name.lower().replace("_", "-"), ()):
                seen += 1
                assert one.operator != "==" or one.version in wanted.specifier, wanted
    assert seen > 5


@pytest.mark.skipif(not util.find_spec("verl"), reason="verl has no release for this Python")
def test_the_constraints_for_gpus_are_what_verl_and_trl_ask_for():
    pinned, seen = constraints("constraints-gpu.txt"), set()
    for package in ("verl", "trl"):
        for wanted in map(Requirement, metadata.requires(package) or []):
            if (
                wanted.marker
                and wanted.marker.evaluate({"extra": "vllm"})
                and wanted.name in pinned
            ):
                (one,) = pinned[wanted.name]
                # Of transformers the file says why it does not.
                assert (one.version in wanted.specifier) == (str(wanted.specifier) != "==5.9.0")
                seen.add(wanted.name)
    assert seen >= {"torch", "torchvision", "torchaudio", "vllm", "transformers"}
