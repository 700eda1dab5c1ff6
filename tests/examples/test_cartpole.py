import math
import runpy
from pathlib import Path

import pytest
import torch

from ctpo.objective import RatioWindow, preset

ROOT = Path(__file__).parents[2]
gymnasium = pytest.importorskip("gymnasium")


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(ROOT / "examples" / "cartpole.py"))


def test_a_game_counts_up_to_the_step_at_which_the_pole_falls(example):
    games = gymnasium.make_vec("CartPole-v1", 6, vectorization_mode="vector_entry_point")
    seen, done, mask = example["play"](torch.nn.Linear(4, 2), games, seed=3)
    for game in range(6):
        alone = gymnasium.make("CartPole-v1").unwrapped
        alone.reset(seed=0)
        alone.state = seen[game, 0].double().numpy()
        for step in range(int(mask[game].sum())):
            assert torch.allclose(seen[game, step], torch.tensor(alone.state).float(), atol=1e-3)
            _, _, fallen, _, _ = alone.step(int(done[game, step]))
        assert fallen == (mask[game].sum() < 500)
        assert not mask[game, int(mask[game].sum()) :].any()


def test_a_policy_learns_to_keep_the_pole_up(example):
    lengths = list(example["train"](preset("ctpo"), batches=4, games=16, updates=32, rate=1e-2))
    assert len(lengths) == 4
    assert max(lengths[1:]) > 1.5 * lengths[0]


@pytest.mark.parametrize("width", [10.0, 100.0])
def test_a_widened_window_is_so_much_wider_for_the_logarithm_of_the_weight(width):
    widened = runpy.run_path(str(ROOT / "studies" / "control.py"))["widened"]
    for method in ("ctpo", "pnpo", "full-sequence"):
        window, published = widened(method, width).window, preset(method).window
        for name in ("eps_low", "eps_high", "dual_clip"):
            assert getattr(window, name) == pytest.approx(width * getattr(published, name))
    for method in ("grpo", "gspo"):
        window, published = widened(method, width).window, preset(method).window  # type: ignore[call-overload]
        assert isinstance(published, RatioWindow)
        low, high = math.log1p(-published.clip_low), math.log1p(published.clip_high)
        assert math.log1p(-window.clip_low) == pytest.approx(width * low)
        assert math.log1p(window.clip_high) == pytest.approx(width * high)
