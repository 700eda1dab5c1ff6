"""The room is a library in its own right."""

import subprocess
import sys


def test_needs_torch_numpy_and_the_standard_library_only():
    program = """
import sys
import torch
before = set(sys.modules)
sys.modules["jaxtyping"] = None
import ctpo.objective
outside = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(outside - {"ctpo", "torch", "numpy", "jaxtyping"} - set(sys.stdlib_module_names)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
