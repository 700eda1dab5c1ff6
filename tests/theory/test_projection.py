import pytest
import torch

from ctpo.theory import projection as module
from ctpo.theory.projection import Sketch, trajectory_gradients


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 5), (13,), (4, 3, 2))
    return [torch.randn(*s, generator=generator, requires_grad=True) for s in shapes]


def stacked(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, *p.shape, generator=generator) for p in parameters()]


def flat(gradients):
    return torch.cat([g.flatten(1) for g in gradients], 1)


def test_the_sketch_is_linear():
    sketch = Sketch(parameters(), dimensions=11)
    a, b = stacked(2, 1), stacked(2, 2)
    both = sketch([2 * x - y for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(both, 2 * sketch(a) - sketch(b), rtol=0, atol=1e-5)


def test_inner_products_are_right_on_average():
    a, b = stacked(1, 1), stacked(1, 2)
    exact = float((flat(a) * flat(b)).sum())
    scale = float(flat(a).norm() * flat(b).norm())
    dimensions, draws = 16, 400
    found = [
        float((s(a) * s(b)).sum())
        for s in (Sketch(parameters(), dimensions=dimensions, seed=i) for i in range(draws))
    ]
    # Five standard errors, of draws whose seeds are fixed.
    allowed = 5 * scale * (2 / dimensions / draws) ** 0.5
    assert sum(found) / draws == pytest.approx(exact, abs=allowed)
    spread = torch.tensor(found).std()
    assert float(spread) < 2 * scale * (2 / dimensions) ** 0.5


def test_every_coordinate_lands_in_one_place_with_one_sign():
    some = parameters()
    sketch = Sketch(some, dimensions=9)
    size = sum(p.numel() for p in some)
    units = torch.eye(size).split([p.numel() for p in some], 1)
    rows = sketch([u.reshape(size, *p.shape) for u, p in zip(units, some, strict=True)])
    assert bool(((rows != 0).sum(1) == 1).all())
    assert set(rows[rows != 0].tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("at_once", [1, 10**9])
def test_gradients_of_a_trajectory_are_those_of_separate_passes(monkeypatch, at_once):
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    some = parameters()
    x = torch.linspace(-1, 1, 5)
    logprobs = (some[0] @ x).sin() * some[1][:7] + some[2].square().sum()
    coefficients = torch.randn(4, 7, generator=torch.Generator().manual_seed(3)).double()
    sketch = Sketch(some, dimensions=11)
    squares, sketches = trajectory_gradients(logprobs, some, coefficients, sketch)
    for e in range(4):
        loss = (coefficients[e].float() * logprobs).sum()
        gradients = [g[None] for g in torch.autograd.grad(loss, some, retain_graph=True)]
        expected = float(flat(gradients).double().square().sum())
        assert float(squares[e]) == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(sketches[e], sketch(gradients)[0], rtol=1e-4, atol=1e-4)


def test_a_sketch_without_dimensions_is_refused():
    with pytest.raises(ValueError, match="dimensions is 0; at least 1 is needed"):
        Sketch(parameters(), dimensions=0)
