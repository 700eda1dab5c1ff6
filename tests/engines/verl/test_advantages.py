import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed (it has no release for Python 3.13)")

from verl.protocol import DataProto
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage

from ctpo.engines.verl import plugin  # noqa: F401 - as verl loads it
from ctpo.engines.verl.reward import UNGRADED
from ctpo.objective import group_centered, group_normalized


def batch(scores, groups, seed=0):
    """Scores as verl has them: on the last token of responses of different lengths, with holes."""
    random = torch.Generator().manual_seed(seed)
    rewards, mask = torch.zeros(len(scores), 9), torch.zeros(len(scores), 9)
    for row, score in enumerate(scores):
        length = int(torch.randint(2, 10, (), generator=random))
        mask[row, :length] = (torch.rand(length, generator=random) < 0.6).float()
        mask[row, 0] = 1
        rewards[row, length - 1] = score
    return rewards, mask, np.array(groups, dtype=object)


def estimate(rewards, mask, index, **config):
    """As verl's trainer computes them."""
    data = DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask},
        non_tensors={"uid": index},
    )
    data = compute_advantage(
        data, adv_estimator="ctpo_group", num_repeat=4, config=AlgoConfig(**config)
    )
    assert torch.equal(data.batch["advantages"], data.batch["returns"])
    return data.batch["advantages"]


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_where_all_are_graded_it_is_verls_grpo(normalized, seed):
    random = torch.Generator().manual_seed(seed)
    groups = ["a"] * 4 + ["b"] * 3 + ["a"] * 2 + ["c"] * 4
    scores = torch.randint(0, 3, (len(groups),), generator=random).tolist()
    rewards, mask, index = batch(scores, groups, seed)
    found = estimate(rewards, mask, index, norm_adv_by_std_in_grpo=normalized)
    expected, _ = compute_grpo_outcome_advantage(
        rewards.clone(), mask, index, norm_adv_by_std_in_grpo=normalized
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("ungraded", [UNGRADED, float("nan")])
@pytest.mark.parametrize("normalized", [True, False])
def test_an_ungraded_answer_enters_nothing_and_gets_nothing(normalized, ungraded):
    """The others get what they would get without it, which is the objective's advantage."""
    groups = ["a", "b", "a", "b", "a", "a", "b", "c"]
    scores = [1, 0, 0, 1, ungraded, 1, ungraded, ungraded]
    rewards, mask, index = batch(scores, groups)
    found = estimate(rewards, mask, index, norm_adv_by_std_in_grpo=normalized)
    ours = group_normalized if normalized else group_centered
    graded = [i for i, score in enumerate(scores) if score in (0, 1)]
    expected = ours(
        torch.tensor([float(scores[i]) for i in graded]),
        groups=torch.tensor(["abc".index(groups[i]) for i in graded]),
    )
    torch.testing.assert_close(found[graded], expected[:, None] * mask[graded])
    left_out = [i for i in range(len(scores)) if i not in graded]
    assert torch.equal(found[left_out], torch.zeros(len(left_out), 9))
    assert found[graded].abs().sum() > 0


def test_by_hand():
    rewards, mask, index = batch([1, 0, 0, 0, UNGRADED], ["x"] * 5)
    found = estimate(rewards, mask, index)[:, 0].tolist()
    # mean 1/4, deviation sqrt((9 + 1 + 1 + 1) / 16 / 3) = 1/2
    assert found == pytest.approx([1.5, -0.5, -0.5, -0.5, 0.0], abs=1e-5)


def test_the_mark_of_an_ungraded_answer_survives_what_verl_does_to_scores():
    score = torch.zeros(8000)
    score[-1] = UNGRADED  # float32, as `AgentLoopOutput.as_dict` makes it
    assert float(score.sum()) == UNGRADED
    assert float(score.bfloat16().sum()) == UNGRADED
    assert float(torch.tensor([1.0, UNGRADED]).mean()) == 0.5


def test_a_group_of_one_teaches_nothing():
    rewards, mask, index = batch([1, 1, 0], ["a", "b", "b"])
    found = estimate(rewards, mask, index)
    assert torch.equal(found[0], torch.zeros(9))
    assert found[1, 0] > 0 > found[2, 0]


def test_verls_padding_rows_change_nothing():
    rewards, mask, index = batch([1, 0, 0, 0], ["a", "a", "pad1", "pad1"])
    mask[2:] = 0
    found = estimate(rewards, mask, index)
    torch.testing.assert_close(found[:2], estimate(rewards[:2], mask[:2], index[:2]))
    assert torch.equal(found[2:], torch.zeros(2, 9))


def test_a_batch_in_which_nothing_could_be_graded_stops_the_run():
    rewards, mask, index = batch([UNGRADED, UNGRADED, 0], ["a", "a", "pad"])
    mask[2] = 0
    with pytest.raises(ValueError, match="none of the 2 answers of this batch could be graded"):
        estimate(rewards, mask, index)


def test_a_penalty_in_the_reward_which_would_hide_the_mark_is_refused():
    with pytest.raises(ValueError, match="use_kl_in_reward"):
        estimate(*batch([1, 0], ["a", "a"]), use_kl_in_reward=True)


def test_verl_knows_it_by_name():
    assert get_adv_estimator_fn("ctpo_group").__module__ == "ctpo.engines.verl.advantages"
