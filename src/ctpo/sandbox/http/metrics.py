"""Statistics in Prometheus's text format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/. Written here: it is a dozen numbers
that another process has than the one that is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_STATUSES = ("success", "error", "timeout", "memory", "output-limit", "sandbox-failure")
_NUMBERS = (
    ("workers", "gauge", "Programs that run at once at most."),
    ("in_flight", "gauge", "Programs at work."),
    ("waiting", "gauge", "Programs that wait for a worker."),
    ("restarts", "counter", "Server processes replaced after they died."),
    ("queue_seconds", "counter", "Seconds that programs have waited for a worker."),
    ("wall_seconds", "counter", "Seconds that programs have run."),
    ("cpu_seconds", "counter", "Processor seconds that programs have used."),
)


def render(statistics: Mapping[str, Any]) -> str:
    """The text.

    Args:
        statistics: What `Sandbox.statistics` says.
    """
    lines = [
        "# HELP ctpo_sandbox_executions_total Programs that have ended, by how.",
        "# TYPE ctpo_sandbox_executions_total counter",
    ]
    for status in _STATUSES:
        count = statistics["outcomes"].get(status, 0)
        lines.append(f'ctpo_sandbox_executions_total{{status="{status}"}} {count}')
    for key, kind, words in _NUMBERS:
        name = f"ctpo_sandbox_{key}" + ("_total" if kind == "counter" else "")
        lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}", f"{name} {statistics[key]}"]
    return "\n".join(lines) + "\n"
