"""Run untrusted Python: one forked, confined process per program.

```python
with Sandbox(preload=["sympy"]) as sandbox:
    print(sandbox.run("print(6 * 7)").stdout)
```
"""

from ctpo.sandbox.execution import Execution, Status
from ctpo.sandbox.program import Program
from ctpo.sandbox.protections import Protections, SandboxUnavailable
from ctpo.sandbox.sandbox import Sandbox, probe
from ctpo.sandbox.session import Session, SessionOver

__all__ = [
    "Execution",
    "Program",
    "Protections",
    "Sandbox",
    "SandboxUnavailable",
    "Session",
    "SessionOver",
    "Status",
    "probe",
]
