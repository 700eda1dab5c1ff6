"""What is done to a process's memory so that forks of it are cheap."""

import os
import subprocess
import sys

LAID_OUT = """
import ctypes, decimal, hashlib, os
from ctpo.sandbox.jail import kernel, memory

def regions():
    with open("/proc/self/maps") as lines:
        return [line.split() for line in lines if "vsyscall" not in line]

def code():
    found = hashlib.sha256()
    for start, end in spans:
        found.update(ctypes.string_at(start, end - start))
    return found.hexdigest()

spans = [tuple(int(p, 16) for p in r[0].split("-")) for r in regions()
         if r[1] == "r-xp" and r[-1].startswith("/")]
before, many = code(), len(regions())
memory.join_mappings()
memory.use_huge_pages()
memory.use_huge_pages_for_code()
assert code() == before, "code is what it was"
assert len(regions()) < many * 3 / 4, (len(regions()), many)
assert not [r for r in regions() if "w" in r[1] and "x" in r[1]], "never both"
assert memory.use_huge_pages_for_code() >= 0, "twice does no harm"
assert str(decimal.Decimal(1) / 3) == "0." + 28 * "3"
pid = kernel.fork()
if pid == 0:
    import bz2
    os._exit(len(bz2.compress(b"a" * 1000)) > 500)
assert os.waitpid(pid, 0)[1] == 0, "libraries can still be loaded"
"""


def test_memory_laid_out_for_forks_is_used_as_before():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", LAID_OUT], env=environment, check=True, timeout=60)
