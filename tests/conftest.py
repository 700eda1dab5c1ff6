"""Shared by all rooms: no network, one thread, and a model small enough for every test."""

import os
import random
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two workers share two processors

import hypothesis
import numpy as np
import pytest
import torch

# A busy machine is no bug in an example, and what is found by chance is not found again.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """No test gets other random numbers because another one has run before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


# What starts servers, or counts processes, one worker runs and no two at once.
PROCESSES = (
    "tests/sandbox/",
    "tests/cli/test_sandbox.py",
    "tests/evaluation/test_server.py",
    "tests/grading/test_pool.py",
    "tests/training/verl/test_child.py",
)
# What starts Ray, and counts its processes, likewise.
RAY = (
    "tests/cli/test_verl.py",
    "tests/engines/verl/",
    "tests/grading/test_ray.py",
    "tests/training/verl/test_config.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give all tests of a file to one worker of pytest-xdist, so that they share its fixtures."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            for group in (PROCESSES, RAY):
                if nodeid.startswith(group):
                    return group[0]
            return nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sandbox():
    from ctpo.sandbox import Sandbox

    with Sandbox(workers=2, timeout=3.0) as started:
        yield started


@pytest.fixture(scope="session")
def tokenizer():
    from ctpo.tasks import generate
    from ctpo.training.tiny import teacher
    from ctpo.training.tiny.model import build_tokenizer

    transcripts = teacher.demonstrations(generate(700, seed=0), seed=0)
    texts = [t.messages[-1]["content"] + "\n" + t.text for t in transcripts]
    return build_tokenizer(texts, 384)


@pytest.fixture
def model(tokenizer):
    """An untrained model: its text is noise, its log-probabilities are as good as any."""
    from ctpo.training.recipe.recipe import TinyModel
    from ctpo.training.tiny.model import build_model

    settings = TinyModel(
        hidden_size=32, layers=2, heads=2, key_value_heads=1, head_size=16, intermediate_size=32
    )
    return build_model(settings, tokenizer, seed=0).eval()


_SCALES = {
    "ctpo-fixed": 0.7,
    "pnpo": 0.05,
    "grpo": 0.2,
    "dapo": 0.2,
    "dr-grpo": 0.2,
    "gspo": 0.002,
    "gspo-token": 0.002,
    "gmpo": 0.4,
    "cispo": 1.2,
    "sapo": 0.3,
    "minpro": 1.5,
    "cppo": 0.4,
}


def _make_batch(rows, columns, *, seed=0, scale=0.1, holes=0.3, dtype=torch.float32):
    """Return logprobs (leaf), old_logprobs, advantages [B] of both signs and a mask with holes."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    old_logprobs = -normal(rows, columns).abs()
    logprobs = old_logprobs + scale * normal(rows, columns)
    mask = torch.rand(rows, columns, generator=generator) >= holes
    return (
        logprobs.to(dtype).requires_grad_(),
        old_logprobs.to(dtype),
        normal(rows).to(dtype),
        mask,
    )


@pytest.fixture(scope="session")
def make_batch():
    return _make_batch


@pytest.fixture(scope="session")
def scale_of():
    """Return a function from a preset to a spread of log r that leaves tokens on both sides of its
    window's edges, over about ten tokens."""
    return lambda name: _SCALES.get(name, 0.1)


@pytest.fixture
def registering(monkeypatch):
    """Let a test register parts and presets, import `own_parts` among them; afterwards they are
    gone."""
    import sys
    from pathlib import Path
    from typing import Any

    from ctpo.objective.named import presets, registry

    losses = sys.modules.get("verl.trainer.ppo.core_algos")
    tables: list[dict[str, Any]] = [registry._ratios, registry._windows, registry._surrogates]
    tables += [presets._methods, presets._objectives]
    tables += [losses.POLICY_LOSS_REGISTRY] if losses else []
    before = [dict(table) for table in tables]
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    yield
    sys.modules.pop("own_parts", None)
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
