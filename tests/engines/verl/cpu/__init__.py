"""verl on a machine without an accelerator, for tests: platform and rollout.

verl's own processes load it through `VERL_USE_EXTERNAL_MODULES=tests.engines.verl.cpu` with the
repository in `PYTHONPATH`; a test that runs verl inside its own process imports it.
"""

from tests.engines.verl.cpu import platform

platform.install()
