"""Which user ids programs get."""

import os
import tempfile
from pathlib import Path

import pytest

from ctpo.sandbox.jail.plan import spare_uid
from ctpo.sandbox.protections import LANDLOCK_ONLY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has ids to lend")


@pytest.mark.parametrize(
    ("folder", "file", "lent"),
    [(0o755, 0o644, True), (0o711, 0o604, True), (0o700, 0o644, False), (0o755, 0o640, False)],
)
def test_an_id_that_could_not_read_python_is_not_lent(folder, file, lent, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="ctpo-", dir="/var/tmp") as above:
        Path(above).chmod(0o755)
        within = Path(above, "lib")
        within.mkdir()
        (within / "os.py").touch()
        (within / "os.py").chmod(file)
        within.chmod(folder)
        monkeypatch.setattr(os, "__file__", str(within / "os.py"))
        assert (spare_uid(LANDLOCK_ONLY, 0) is not None) == lent
