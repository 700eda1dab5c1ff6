import pytest
import torch

from ctpo.training.tiny.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_an_update_has_the_singular_vectors_of_its_matrix_and_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = u.T @ orthogonalized(1e-3 * matrix) @ v.T
    assert values.diagonal().min() > 0.6 and values.diagonal().max() < 1.3
    assert (values - values.diagonal().diag()).abs().max() < 1e-4


def test_steps_are_those_of_torchs_own_but_for_its_rounding():
    random = torch.Generator().manual_seed(1)
    start = torch.randn(12, 20, generator=random)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = Muon([ours], lr=0.01)
    other = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        gradient = torch.randn(12, 20, generator=random)
        for weight, optimizer in ((ours, mine), (theirs, other)):
            weight.grad = gradient.clone()
            optimizer.step()
    assert (ours - start).norm() > 0.1
    assert (ours - theirs).norm() < 0.03 * (ours - start).norm()
