"""The floor of studies/floor.py lifts good tokens, leaves the others, and is all that differs."""

import runpy
from pathlib import Path

import pytest
import torch

FLOOR = runpy.run_path(str(Path(__file__).parents[2] / "studies/floor.py"))
# One sequence of good and one of bad tokens: inside the window, far below it, far above it.
NEW = torch.tensor([[0.01, -2.0, 4.0], [0.01, -2.0, 4.0]])
EDGE = -0.025 * torch.tensor(2.0).sqrt()  # of the window below, at the second token


def weights(method):
    objective = FLOOR["METHODS"][method]
    new = NEW.clone().requires_grad_()
    advantages, mask = torch.tensor([1.0, -1.0]), torch.ones(2, 3, dtype=torch.bool)
    objective(new, torch.zeros(2, 3), advantages, mask, statistics=False).mean(
        "token-mean"
    ).backward()
    assert new.grad is not None
    return new.grad * -6 * advantages[:, None]  # six tokens, of each A times its weight


@pytest.mark.parametrize(
    ("method", "floor"),
    [("ctpo, floor at the window", EDGE), ("ctpo, floor at 1", torch.zeros(()))],
)
def test_only_good_tokens_below_it_are_lifted_to_the_floor(method, floor):
    lifted, plain = weights(method), weights("ctpo")
    changed = lifted != plain
    assert changed.tolist() == [[False, True, False], [False] * 3]
    assert plain[0, 1].item() == pytest.approx(NEW[0, :2].sum().exp().item())
    assert lifted[0, 1].item() == pytest.approx(floor.exp().item())
