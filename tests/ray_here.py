"""Ray on this machine alone."""

import os
from typing import Any

import ray


def start(**options: Any) -> None:
    """Start Ray, which gives itself half a minute, a time that a busy machine may need longer.

    Args:
        options: Of `ray.init`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    for attempts_left in (3, 2, 1, 0):
        try:
            ray.init(include_dashboard=False, object_store_memory=80 << 20, **options)
            return
        except Exception:
            ray.shutdown()
            if not attempts_left:
                raise
