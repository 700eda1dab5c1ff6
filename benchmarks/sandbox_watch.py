"""What a server and its descendants hold: processes, descriptors, mounts, memory."""

import contextlib
import os
from pathlib import Path


def tree(root):
    found, unseen = [], [root]
    while unseen:
        pid = unseen.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                unseen += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            found.append(pid)
    return found


def held(root):
    """Counts over the whole tree; memory as proportional set size, which counts pages once."""
    sums = {"processes": 0, "descriptors": 0, "mounts": 0, "memory_mb": 0.0}
    for pid in tree(root):
        with contextlib.suppress(OSError):
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            mounts = Path(f"/proc/{pid}/mounts").read_text().count("\n")
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            sums["memory_mb"] += int(rollup.split("Pss:")[1].split()[0]) / 1024
            sums["processes"] += 1
            sums["descriptors"] += descriptors
            sums["mounts"] = max(sums["mounts"], mounts)
    return {**sums, "memory_mb": round(sums["memory_mb"], 1)}
