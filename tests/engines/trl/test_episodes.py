"""Episodes as TRL's rollout and reward: what goes in, what comes out, in which order."""

from types import SimpleNamespace
from typing import Any

import pytest

from ctpo.engines.trl import RolloutScores
from ctpo.engines.trl.episodes import EpisodeRollout
from ctpo.tir import EpisodeSettings, Sampled, ToolResult, Trajectory, Turn

PROMPTS = [[{"role": "user", "content": f"Find {n}."}] for n in range(3)]


class Echo:
    """Answers each prompt with its own number, and remembers how it was opened."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.opened = []

    def open(self, prompts, *, temperature, seed):
        self.opened.append((temperature, seed))
        return self

    def generate(self, rows, append, budgets, stop):
        results = []
        for row in rows:
            ids = [*self.tokenizer.encode(f"\\boxed{{{row}}}"), self.tokenizer.eos_token_id]
            results.append(Sampled(ids, [-0.1 * (row + 1)] * len(ids), "eos"))
        return results


@pytest.fixture
def echo(tokenizer):
    return Echo(tokenizer)


@pytest.fixture
def make_rollout(sandbox, echo):
    def make(seed=0):
        settings = EpisodeSettings(max_response_tokens=50, max_calls=1)
        return EpisodeRollout(sandbox, settings, seed=seed, generator=lambda _: echo)

    return make


def trainer(tokenizer, step=0, process=0, temperature=1.0):
    return SimpleNamespace(
        processing_class=tokenizer,
        temperature=temperature,
        state=SimpleNamespace(global_step=step),
        accelerator=SimpleNamespace(process_index=process),
    )


def text_only(text, **changes):
    fields: dict[str, Any] = {
        "prompt_ids": [1],
        "response_ids": [2],
        "mask": [True],
        "sampler_logprobs": [-1.0],
        "turns": [Turn("assistant", 0, 1, text)],
        "tool_results": [],
        "finish_reason": "answered",
    }
    return Trajectory(**fields | changes)


def test_the_sampling_seed_follows_from_seed_step_and_process(make_rollout, echo, tokenizer):
    for seed, step, process in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)):
        make_rollout(seed)(PROMPTS, trainer(tokenizer, step, process))
    seeds = [seed for _, seed in echo.opened]
    assert seeds[0] == seeds[4]
    assert len(set(seeds)) == 4


def test_the_trainers_temperature_is_sampled_at(make_rollout, echo, tokenizer):
    make_rollout()(PROMPTS, trainer(tokenizer, temperature=0.7))
    assert echo.opened[0][0] == 0.7


def test_what_trl_is_given_is_what_was_sampled(make_rollout, tokenizer):
    output = make_rollout()(PROMPTS, trainer(tokenizer))
    for row, trajectory in enumerate(output["trajectory"]):
        assert output["prompt_ids"][row] == trajectory.prompt_ids
        assert output["completion_ids"][row] == trajectory.response_ids
        assert output["logprobs"][row] == [-0.1 * (row + 1)] * len(trajectory.response_ids)
        assert output["env_mask"][row] == [1] * len(trajectory.response_ids)


def test_rewards_are_one_zero_and_none(make_rollout):
    rollout = make_rollout()
    lost = [ToolResult("print(7)", "sandbox-failure", "", "gone")]
    trajectories = [
        text_only("\\boxed{7}"),
        text_only("\\boxed{8}"),
        text_only("\\boxed{something else}"),
        # Right, but nobody knows what it would have said had its program run.
        text_only("\\boxed{7}", tool_results=lost),
        # The tool printed the answer; the policy did not give it.
        text_only("", turns=[Turn("assistant", 0, 1, "no box"), Turn("tool", 1, 1, "\\boxed{7}")]),
    ]
    rewards = rollout.reward(trajectories, ["7"] * 5, id=list("abcde"), source=["s"] * 5)
    assert rewards == [1.0, 0.0, None, None, 0.0]
    assert [t.reward for t in rollout.trajectories] == rewards
    assert [t.problem_id for t in rollout.trajectories] == list("abcde")
    assert {t.source for t in rollout.trajectories} == {"s"}


def test_a_batch_nobody_can_grade_stops_the_run(make_rollout):
    with pytest.raises(ValueError, match="none of the 2 answers of this batch could be graded"):
        make_rollout().reward([text_only("\\boxed{some prose}")] * 2, ["7"] * 2)


def test_scores_are_filled_in_row_by_row(make_rollout, tokenizer):
    rollout = make_rollout()
    output = rollout(PROMPTS, trainer(tokenizer))
    lengths = [len(ids) for ids in output["completion_ids"]]
    rollout.scored(RolloutScores([0.0, 1.0, 2.0], [[-0.5 * r] * n for r, n in enumerate(lengths)]))
    assert [t.advantage for t in rollout.trajectories] == [0.0, 1.0, 2.0]
    for row, trajectory in enumerate(rollout.trajectories):
        assert trajectory.old_logprobs == [-0.5 * row] * lengths[row]
    rollout.scored(RolloutScores([3.0, 4.0, 5.0], None))
    assert [t.old_logprobs for t in rollout.trajectories] == [None] * 3
