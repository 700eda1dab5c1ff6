"""The `policy_loss` section: by class, by package yaml, and what verl's loaders make of it."""

import pytest

pytest.importorskip("verl", reason="verl has no release for this Python")

import shlex
import warnings
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from verl.utils.config import omega_conf_to_dataclass

from ctpo.engines.verl import refusals
from ctpo.engines.verl.loss import objective_of
from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig
from ctpo.engines.verl.names import loss_name
from ctpo.engines.verl.paths import PATHS, SEARCH_PATH
from ctpo.objective import METHODS, PRESETS, preset

TARGET = "ctpo.engines.verl.loss_config.CTPOPolicyLossConfig"
SECTION = "actor_rollout_ref.actor.policy_loss"
ACTOR = "actor_rollout_ref.actor"
PACKAGE = (f"hydra.searchpath=[{SEARCH_PATH}]", "+policy_loss=ctpo")


def composed(*overrides, name="ppo_trainer"):
    """verl's own configuration, as its trainer composes it from the command line."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(name, [f"{ACTOR}.ppo_micro_batch_size_per_gpu=1", *overrides])


def loaded(*overrides, **options):
    """The actor's section as verl's workers load it."""
    config = composed(*overrides, **options)
    OmegaConf.resolve(config)  # as verl's trainer does before it starts workers
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)


def test_the_package_yaml_is_the_preset():
    settings = loaded(*PACKAGE).policy_loss
    assert isinstance(settings, CTPOPolicyLossConfig)
    assert settings.loss_mode == "ctpo"
    assert objective_of(settings) == preset("ctpo")
    assert PATHS["policy_loss"].is_file()


@pytest.mark.parametrize("name", ["ppo_trainer", "ppo_megatron_trainer"])
def test_parameters_are_set_through_the_package_yaml(name):
    settings = loaded(
        *PACKAGE,
        f"{SECTION}.eps_low=0.03",
        f"{SECTION}.dual_clip=off",
        f"{SECTION}.positions=/somewhere",
        name=name,
    ).policy_loss
    assert objective_of(settings) == preset("ctpo", eps_low=0.03, dual_clip=None)
    assert settings.positions == "/somewhere"


def test_further_parameters_are_set_by_name():
    settings = loaded(
        *PACKAGE, f"{SECTION}.loss_mode=ctpo-sapo", f"+{SECTION}.parameters.tau_pos=0.9"
    ).policy_loss
    assert objective_of(settings) == preset("sapo", tau_pos=0.9)
    literal = CTPOPolicyLossConfig(parameters={"gradient": "literal"})
    assert objective_of(literal) == preset("ctpo", gradient="literal")


def test_the_class_alone_is_enough():
    settings = loaded(
        f"{SECTION}._target_={TARGET}",
        f"{SECTION}.loss_mode=ctpo-printed",
        f"+{SECTION}.eps_high=0.06",
    ).policy_loss
    assert objective_of(settings) == preset("ctpo-printed", eps_high=0.06)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_configured_by_the_name_of_its_loss(name):
    assert objective_of(CTPOPolicyLossConfig(loss_mode=loss_name(name))) == PRESETS[name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_mode": "vanilla"}, "unknown policy_loss.loss_mode 'vanilla'; did you mean"),
        ({"loss_mode": "gspo"}, "'gspo' is verl's own loss, .*; ours is 'ctpo-gspo'"),
        ({"clip_low": 0.2}, "unknown parameter of preset 'ctpo' 'clip_low'; did you mean"),
        ({"eps_low": -0.1}, r"eps_low is -0.1; it must be"),
        ({"eps_low": "much"}, r"policy_loss.eps_low is 'much'; it must be a number"),
        ({"parameters": {"tau": 1.0}}, "unknown parameter of preset 'ctpo' 'tau'"),
        ({"eps_low": 0.1, "parameters": {"eps_low": 0.1}}, "policy_loss.eps_low is given twice"),
        ({"parameters": {"mismatch": 5}}, "rollout_correction.rollout_is=prefix"),
        ({"clip_cov_lb": 2.0}, "policy_loss.clip_cov_lb is 2.0: .* no effect on 'ctpo'"),
        ({"dro_beta": 0.5}, "policy_loss.dro_beta is 0.5: .* no effect on 'ctpo'"),
        (
            {"rollout_correction": {"rollout_rs": "seq_sum_k1,token_k1"}},
            "rollout_rs is 'seq_sum_k1,token_k1': rejecting single tokens punches holes",
        ),
    ],
)
def test_what_would_have_no_effect_or_is_wrong_is_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        CTPOPolicyLossConfig(**settings)


def test_an_unknown_key_is_refused_by_verls_loader():
    with pytest.raises(InstantiationException, match="eps_lo"):
        loaded(*PACKAGE, f"+{SECTION}.eps_lo=0.03")


def test_rejection_of_tokens_is_refused_where_the_loss_is_loaded():
    correction = "algorithm.rollout_correction"
    with pytest.raises(InstantiationException, match="rejecting single tokens punches holes"):
        loaded(*PACKAGE, f"{correction}.rollout_rs=token_k1")
    loaded(*PACKAGE, f"{correction}.rollout_rs=seq_sum_k1")


# What verl's own check of the whole configuration says, before anything starts.
SOURCE = f"{ACTOR}.loss_agg_mode=seq-mean-token-mean"
LOGPROBS = "actor_rollout_ref.rollout.calculate_log_probs=true"
NO_LOGPROBS = "actor_rollout_ref.rollout.calculate_log_probs=false"
RUNNABLE = (
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1",
    "algorithm.adv_estimator=grpo",
)


@pytest.fixture(scope="module")
def validate():
    """Change verl's configuration and let verl check it."""
    from verl.trainer import main_ppo  # has the function by name, as verl's program has

    base = composed(*RUNNABLE, *PACKAGE)

    def check(*changes):
        config = OmegaConf.merge(base, OmegaConf.from_dotlist([*changes]))
        main_ppo.validate_config(config, False, False)

    return check


def test_a_sound_configuration_passes_without_a_word(validate):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(ratio|loss_agg_mode).*")
        validate(SOURCE)
        validate(SOURCE, LOGPROBS, "algorithm.rollout_correction.rollout_is=prefix")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{ACTOR}.clip_ratio_high=0.28"], "actor.clip_ratio_high is 0.28: .*eps_high"),
        ([f"{SECTION}.ppo_kl_coef=0.2"], "policy_loss.ppo_kl_coef is 0.2"),
        (["actor_rollout_ref.rollout.top_p=0.95"], "rollout.top_p is 0.95: truncated sampling"),
        (["actor_rollout_ref.rollout.top_k=50"], "rollout.top_k is 50: truncated sampling"),
        (
            [LOGPROBS, "algorithm.rollout_correction.rollout_rs=token_k2"],
            "rollout_rs is 'token_k2': rejecting single tokens",
        ),
        (
            [NO_LOGPROBS, "algorithm.rollout_correction.rollout_is=sequence"],
            "rollout_is is 'sequence' and has no effect .*calculate_log_probs=true",
        ),
        (
            [LOGPROBS, "algorithm.rollout_correction.bypass_mode=true", "trainer.use_v1=false"],
            "replaces the loss 'ctpo' by 'bypass_mode'",
        ),
    ],
)
def test_verls_check_refuses_what_does_not_go_with_our_losses(overrides, message, validate):
    with pytest.raises(ValueError, match=message):
        validate(SOURCE, *overrides)


def test_verls_check_warns_of_another_reduction_and_of_the_generators_log_probs(validate):
    with pytest.warns(UserWarning, match="loss_agg_mode is 'token-mean'; .* 'seq-mean-token-mean'"):
        validate()
    with pytest.warns(UserWarning, match="bypass_mode takes the generator's log-probs"):
        validate(SOURCE, LOGPROBS, "algorithm.rollout_correction.bypass_mode=true")


def test_the_documented_lines_pass_verls_check_and_are_the_papers_loss():
    from verl.trainer import main_ppo

    page = (Path(__file__).parents[3] / "docs" / "verl.md").read_text()
    section = page.split("## CTPO on verl in five lines", 1)[1]
    overrides = shlex.split(section.split("```")[1])
    assert len(overrides) == 6  # the first line has two
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(ratio|loss_agg_mode).*")
        config = composed(*RUNNABLE, *overrides)
        main_ppo.validate_config(config, False, False)
    OmegaConf.resolve(config)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert objective_of(actor.policy_loss) == preset("ctpo")
    assert actor.loss_agg_mode == METHODS["ctpo"].reduction
    assert actor.policy_loss.positions == "/where/all/nodes/write/positions.parquet"
    # And what the text says of one line alone.
    alone = loaded(f"{SECTION}.loss_mode=ctpo").policy_loss
    assert objective_of(alone) == preset("ctpo")


def test_losses_of_verls_are_left_alone():
    from verl.trainer import main_ppo

    others = (f"{ACTOR}.clip_ratio_high=0.28", "actor_rollout_ref.rollout.top_p=0.95")
    main_ppo.validate_config(composed(*RUNNABLE, *others), False, False)


def test_every_refused_setting_is_one_of_verls():
    from dataclasses import fields

    from verl.workers.config import ActorConfig

    assert refusals._INSTEAD.keys() <= {field.name for field in fields(ActorConfig)}
