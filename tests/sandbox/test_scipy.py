"""scipy, where it is installed, runs as it is; nothing of it has to be preloaded."""

import importlib.util

import pytest

from ctpo.sandbox import Sandbox

if importlib.util.find_spec("scipy") is None:
    pytest.skip("scipy is not installed", allow_module_level=True)

PROGRAM = """
import numpy as np
from scipy import integrate, linalg, optimize, special
print(round(optimize.brentq(lambda x: x**2 - 2, 0, 2), 6))
print(round(integrate.quad(np.sin, 0, np.pi)[0], 6))
print(linalg.det(np.array([[2.0, 1.0], [1.0, 3.0]])).round(6), special.comb(5, 2, exact=True))
print(optimize.dual_annealing(lambda x: (x[0] - 1) ** 2, [(-5, 5)], maxiter=20).x.round(3))
"""


def test_a_program_that_uses_scipy_gets_right_and_repeatable_results():
    with Sandbox(workers=1, timeout=60.0) as sandbox:
        first, second = sandbox.run_many([PROGRAM] * 2)
    assert first.status == "success", first
    lines = first.stdout.splitlines()
    assert lines == ["1.414214", "2.0", "5.0 10", "[1.]"]
    assert second.stdout == first.stdout
