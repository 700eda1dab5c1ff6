import warnings

import pytest

pytest.importorskip("verl", reason="verl is not installed (it has no release for Python 3.13)")

from hydra import compose, initialize_config_module

from ctpo.engines.verl.episodes.refusals import refuse_episode_settings
from ctpo.engines.verl.paths import PATHS

ROLLOUT = "actor_rollout_ref.rollout"
LOOP = (
    f"{ROLLOUT}.agent.default_agent_loop=ctpo",
    f"{ROLLOUT}.agent.agent_loop_config_path={PATHS['agent_loop']}",
    "algorithm.adv_estimator=ctpo_group",
    "reward.custom_reward_function.path=pkg://ctpo.engines.verl.reward",
    "reward.custom_reward_function.name=compute_score",
)


def look(*overrides):
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", list(overrides))
    refuse_episode_settings(config)


def test_our_parts_together_are_accepted_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        look(*LOOP)
        look(*LOOP, f"+{ROLLOUT}.custom.episodes={{protocol:hermes,sandbox:{{timeout:9}}}}")
        look(*LOOP, f"{ROLLOUT}.agent.agent_loop_config_path=null")
        look()


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (f"+{ROLLOUT}.custom.episodes.max_turns=5", "episodes.max_turns means nothing"),
        (f"+{ROLLOUT}.custom.episodes.protocol=xml", "protocol is 'xml'"),
        (f"{ROLLOUT}.multi_turn.max_assistant_turns=5", "max_assistant_turns is 5.*max_calls"),
        (f"{ROLLOUT}.multi_turn.format=ctpo-fence", "format is 'ctpo-fence'.*protocol"),
        (f"{ROLLOUT}.multi_turn.tool_config_path=x.yaml", "tool_config_path is 'x.yaml'"),
        ("algorithm.use_kl_in_reward=true", "use_kl_in_reward is true.*use_kl_loss"),
    ],
)
def test_what_has_no_effect_or_harms_is_refused_by_name(override, complaint):
    with pytest.raises(ValueError, match=complaint):
        look(*LOOP, override)


def test_an_estimator_that_trains_on_ungraded_answers_is_warned_of():
    with pytest.warns(UserWarning, match="'grpo'.*ctpo_group"):
        look(*LOOP, "algorithm.adv_estimator=grpo")
