"""A recipe on verl: nothing is forgotten, what it decides arrives, what cannot be is refused."""

import json
import subprocess
import sys

import pytest

from ctpo.engines.trl import CTPOConfig
from ctpo.objective import PRESETS
from ctpo.training.recipe.loading import load_recipe, shipped_recipes
from ctpo.training.trl.config import trl_config
from ctpo.training.verl.fields import FIELDS, Mapped
from ctpo.training.verl.files import Start, VerlFiles
from ctpo.training.verl.settings import external_modules, settings

pytest.importorskip("verl", reason="verl is not installed: it has no release for this Python")

from omegaconf import OmegaConf
from verl.utils.config import omega_conf_to_dataclass

from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig
from ctpo.engines.verl.names import loss_name
from ctpo.training.verl import config as verl_config
from tests.training.changes import ON_BOTH
from tests.training.verl.test_fields import ON_VERL

# From here a change of every single field is possible.
BASE = [
    *ON_VERL,
    "rollout.prompts_per_batch=32",
    "rollout.mismatch_cap=4",
    "verl.gpus_per_node=2",
    "optimization.micro_batch=2",
    "evaluation.every=10",
]
LARGE = ["engine=verl", "model.lora="]


def composed(recipe, tmp_path, **further):
    decided = settings(recipe, VerlFiles(tmp_path / "run"), "MODEL", **further)
    return verl_config.compose(recipe.verl, decided)


def loss(config):
    """The section of the loss, as verl's workers load it."""
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor.policy_loss)


def flat(config):
    """Every value of a configuration by its dotted key."""

    def walk(value, prefix):
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk(inner, f"{prefix}{key}.")
        else:
            yield prefix.removesuffix("."), value

    return dict(walk(OmegaConf.to_container(config, resolve=False), ""))


# A change of each field that decides a setting of verl's: the recipe to start from, the change.
CHANGES = {
    **ON_BOTH,
    "name": ("tiny", "name=other"),
    "threads": ("tiny", "threads=2"),
    "model.path": ("large", "model.path=OTHER"),
    "model.tokenizer": ("large", "model.tokenizer=OTHER"),
    "model.chat_template": ("large", "model.chat_template={{x}}"),
    "objective.reduction": ("tiny", "objective.reduction=seq-mean-token-sum"),
    "rollout.prompts_per_batch": ("tiny", "rollout.prompts_per_batch=64"),
    "rollout.responses_per_prompt": ("tiny", "rollout.responses_per_prompt=4"),
    "rollout.keep_every": ("tiny", "rollout.keep_every=0"),
    "rollout.mismatch_cap": ("tiny", "rollout.mismatch_cap="),
    "rollout.mismatch_level": ("tiny", "rollout.mismatch_level=prefix"),
    "verl.nodes": ("tiny", "verl.nodes=2"),
    "verl.gpus_per_node": ("tiny", "verl.gpus_per_node=4"),
    "verl.rollout_engine": ("tiny", "verl.rollout_engine=sglang"),
    "verl.tensor_parallel": ("tiny", "verl.tensor_parallel=2"),
    "verl.gpu_memory_share": ("tiny", "verl.gpu_memory_share=0.3"),
    "verl.max_prompt_tokens": ("tiny", "verl.max_prompt_tokens=99"),
    "verl.strategy": ("tiny", "verl.strategy=fsdp"),
    "verl.offload": ("tiny", "verl.offload=true"),
    "verl.packed": ("tiny", "verl.packed=false"),
    "verl.sequence_parallel": ("tiny", "verl.sequence_parallel=2"),
    "verl.workers": ("tiny", "verl.workers=3"),
    "verl.loggers": ("tiny", 'verl.loggers=["wandb"]'),
    "optimization.keep_checkpoints": ("tiny", "optimization.keep_checkpoints=3"),
    "evaluation.samples_per_problem": ("tiny", "evaluation.samples_per_problem=9"),
    "evaluation.temperature": ("tiny", "evaluation.temperature=0.5"),
    "evaluation.every": ("tiny", "evaluation.every=9"),
}
STARTS = {
    "tiny": ("tiny", BASE),
    "grpo": ("tiny", [*BASE, "objective.preset=grpo"]),
    "large": ("qwen3-4b-1gpu", LARGE),
}


def test_a_change_is_known_for_every_field_that_is_mapped():
    assert set(CHANGES) == {name for name, fate in FIELDS.items() if isinstance(fate, Mapped)}


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    place = tmp_path_factory.mktemp("starts")
    return place, {
        name: flat(composed(load_recipe(recipe, changes), place))
        for name, (recipe, changes) in STARTS.items()
    }


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_decides_the_settings_it_is_said_to_and_no_others(field, starts, registering):
    place, before = starts
    start, change = CHANGES[field]
    recipe, changes = STARTS[start]
    changed = load_recipe(recipe, [*changes, change])
    model = "OTHER" if field == "model.path" else "MODEL"
    decided = settings(changed, VerlFiles(place / "run"), model)
    assert changed.verl is not None
    after = flat(verl_config.compose(changed.verl, decided))
    both = before[start].keys() | after.keys()
    fate = FIELDS[field]
    assert isinstance(fate, Mapped)
    different = {key for key in both if before[start].get(key) != after.get(key)}
    # A key whose value is a mapping changes in its entries.
    assert all(any(d.startswith(key) for d in different) for key in fate.keys), different
    assert all(any(d.startswith(key) for key in fate.keys) for d in different), different


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.rollout.temperature=0.5", "the recipe's rollout.temperature to say"),
        ("actor_rollout_ref.rollout.top_p=0.9", "top_p is for ctpo to say"),
        ("++algorithm={}", "is for"),
        ("actor_rollout_ref.rollout.no_such_thing=1", "verl's configuration cannot be made"),
        ("trainer.device", "must be of the form key=value"),
    ],
)
def test_further_settings_do_not_undo_what_the_recipe_says(override, message, tmp_path):
    recipe = load_recipe("tiny", [*ON_VERL, f"verl.overrides={json.dumps([override])}"])
    with pytest.raises(ValueError, match=message):
        composed(recipe, tmp_path)


def test_further_settings_arrive(tmp_path):
    overrides = ["actor_rollout_ref.rollout.max_num_seqs=77", "+ray_kwargs.ray_init.num_gpus=1"]
    recipe = load_recipe("tiny", [*ON_VERL, f"verl.overrides={json.dumps(overrides)}"])
    config = composed(recipe, tmp_path)
    assert config.actor_rollout_ref.rollout.max_num_seqs == 77
    assert config.ray_kwargs.ray_init.num_gpus == 1


@pytest.mark.parametrize("name", [n for n in shipped_recipes() if load_recipe(n).engine == "verl"])
def test_every_shipped_recipe_for_verl_passes_verls_own_checks(name, tmp_path):
    verl_config.validate(composed(load_recipe(name), tmp_path))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_method_is_the_loss_that_verls_workers_load(preset, tmp_path):
    recipe = load_recipe("tiny", [*ON_VERL, f"objective.preset={preset}"])
    assert loss(composed(recipe, tmp_path)).build_objective() == recipe.objective.build()


@pytest.mark.parametrize(
    "overrides", [["import=own_parts:tempered"], ["preset=own_parts:tempered"]]
)
def test_an_objective_of_ones_own_is_the_loss_that_verls_workers_load(
    overrides, tmp_path, registering
):
    changes = [f"objective.{x}" for x in [*overrides, "parameters.until=8"]]
    recipe = load_recipe("tiny", [*ON_VERL, *changes])
    config = composed(recipe, tmp_path)
    section = loss(config)
    assert section.build_objective() == recipe.objective.build()
    assert (section.import_, section.loss_mode) == ("own_parts:tempered", "tempered")
    verl_config.validate(config)


@pytest.mark.parametrize(
    ("preset", "field", "value", "toml"),
    [
        ("ctpo", "eps_low", "abc", '"abc"'),
        ("ctpo", "power", [0.5], "[0.5]"),
        ("ctpo", "dual_clip", "of", '"of"'),
        ("ctpo", "dual_clip", True, "true"),
        ("ctpo", "eps_low", -1.0, "-1.0"),
        ("ctpo", "clip_low", 0.1, "0.1"),
        ("sapo", "parameters.tau_pos", "much", '"much"'),
        ("sapo", "parameters.tau_po", 1.0, "1.0"),
        ("ctpo", "parameters.mismatch", 5.0, "5.0"),
    ],
)
def test_a_bad_value_gets_the_same_words_from_every_configuration(preset, field, value, toml):
    table, _, name = field.rpartition(".")
    words = set()

    def said(section, make, *arguments, **given):
        with pytest.raises(ValueError) as caught:
            make(*arguments, **given)
        words.add(str(caught.value).replace("objective: ", "").replace(section, ""))
        assert name in str(caught.value)

    changes = [f"objective.preset={preset}", f"objective.{field}={toml}"]
    said("objective.", load_recipe, "tiny", changes)
    further = {name: value} if table else {}
    own = {} if table else {name: value}
    common = {"output_dir": "unused", "use_cpu": True, "bf16": False, "save_strategy": "no"}
    said(
        "objective_",
        CTPOConfig,
        **common,
        steps_per_generation=4,
        objective=preset,
        **own,
        objective_parameters=further,
    )
    given = {"loss_mode": loss_name(preset), **own, "parameters": further}
    said("policy_loss.", CTPOPolicyLossConfig, **given)
    assert len(words) == 1, words


def test_weights_over_the_prefix_pass_verls_own_checks(tmp_path):
    changes = [*ON_VERL, "rollout.mismatch_cap=5", "rollout.mismatch_level=prefix"]
    config = composed(load_recipe("tiny", changes), tmp_path)
    assert config.algorithm.rollout_correction.rollout_is == "prefix"
    verl_config.validate(config)


def test_what_verl_refuses_is_said_in_its_words(tmp_path):
    config = composed(load_recipe("tiny", ON_VERL), tmp_path)
    OmegaConf.update(config, "actor_rollout_ref.actor.loss_agg_mode", "mean")
    with pytest.raises(ValueError, match="verl refuses its configuration: .*loss_agg_mode: mean"):
        verl_config.validate(config)


def test_what_our_loss_refuses_is_refused_before_the_start(tmp_path):
    config = composed(load_recipe("tiny", ON_VERL), tmp_path)
    OmegaConf.update(config, "actor_rollout_ref.actor.clip_ratio", 0.3)
    with pytest.raises(ValueError, match="clip_ratio is 0.3"):
        verl_config.validate(config)


def test_the_papers_settings(tmp_path):
    config = composed(load_recipe("qwen3-4b"), tmp_path)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.data.train_batch_size, rollout.n) == (512, 8)
    assert actor.ppo_mini_batch_size == 32
    assert config.data.train_batch_size // actor.ppo_mini_batch_size * actor.ppo_epochs == 16
    assert rollout.response_length == 8000
    assert rollout.custom.episodes.max_calls + 1 == 5  # turns
    assert (actor.optim.lr, actor.optim.lr_scheduler_type) == (1e-6, "constant")
    assert actor.optim.lr_warmup_steps_ratio == 0
    assert config.trainer.total_training_steps == 305
    assert actor.loss_agg_mode == "seq-mean-token-mean"
    assert actor.policy_loss.loss_mode == "ctpo"
    assert config.algorithm.norm_adv_by_std_in_grpo
    assert not (actor.use_kl_loss or config.algorithm.use_kl_in_reward or actor.entropy_coeff)
    correction = config.algorithm.rollout_correction
    assert (correction.rollout_is, correction.rollout_is_threshold) == ("sequence", 5.0)
    assert (rollout.temperature, rollout.top_p, rollout.top_k) == (1.0, 1.0, -1)
    assert (rollout.val_kwargs.n, rollout.val_kwargs.temperature) == (32, 0.7)
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (1, 8)
    assert config.data.apply_chat_template_kwargs == {"enable_thinking": False}
    assert load_recipe("qwen3-4b").data.held_out == "aime25,aime26,brumo25,hmmt25"


def test_a_recipe_means_the_same_on_both_engines(tmp_path):
    terms = ["optimization.kl_coef=0.1", "optimization.entropy_coef=0.01"]
    recipe = load_recipe("qwen3-4b", terms)
    ours = trl_config(load_recipe("qwen3-4b", ["engine=trl", *terms]), "unused")
    verl = composed(recipe, tmp_path)
    actor, rollout = verl.actor_rollout_ref.actor, verl.actor_rollout_ref.rollout
    responses = verl.data.train_batch_size * rollout.n
    assert ours.generation_batch_size == responses
    assert ours.steps_per_rollout == verl.data.train_batch_size // actor.ppo_mini_batch_size
    assert ours.max_steps == verl.trainer.total_training_steps * ours.steps_per_rollout
    assert ours.num_generations == rollout.n
    assert ours.max_completion_length == rollout.response_length
    assert ours.learning_rate == actor.optim.lr
    assert (ours.weight_decay, ours.max_grad_norm) == (
        actor.optim.weight_decay,
        actor.optim.clip_grad,
    )
    assert ours.temperature == rollout.temperature
    assert (ours.beta, ours.use_bias_correction_kl) == (actor.kl_loss_coef, False)
    assert actor.use_kl_loss and actor.kl_loss_type == "low_var_kl"
    assert ours.entropy_coef == actor.entropy_coeff
    assert ours.loss_type == "grpo" and actor.loss_agg_mode == "seq-mean-token-mean"
    assert ours.scale_rewards == "group" and verl.algorithm.norm_adv_by_std_in_grpo
    assert (
        ours.vllm_importance_sampling_clip_max
        == verl.algorithm.rollout_correction.rollout_is_threshold
    )
    assert ours.chat_template_kwargs == verl.data.apply_chat_template_kwargs
    assert loss(verl).build_objective() == ours.build_objective()


@pytest.mark.verl
def test_the_written_file_is_the_configuration(tmp_path):
    """What `main_ppo` is started with says what was checked, with Hydra's own reading of it."""
    files = VerlFiles(tmp_path / "run")
    recipe = load_recipe("tiny", ON_VERL)
    assert recipe.verl is not None
    config = verl_config.compose(recipe.verl, settings(recipe, files, "MODEL"))
    files.folder.mkdir(parents=True)
    files.config.write_text(verl_config.as_yaml(config, files))
    command = verl_config.command(files)
    assert command[:3] == [sys.executable, "-m", "verl.trainer.main_ppo"]
    # `--cfg all` makes Hydra print the configuration instead of starting anything.
    shown = subprocess.run([*command, "--cfg", "all"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    again = OmegaConf.to_container(OmegaConf.create(shown.stdout))
    assert isinstance(again, dict)
    assert again.pop("hydra")["run"]["dir"] == str(files.folder)
    assert again == OmegaConf.to_container(config)


def test_the_users_own_modules_are_kept_and_ours_comes_behind(monkeypatch):
    monkeypatch.delenv("VERL_USE_EXTERNAL_MODULES", raising=False)
    assert external_modules() == "ctpo.engines.verl.plugin"
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "mine,ctpo.engines.verl.plugin")
    assert external_modules() == "mine,ctpo.engines.verl.plugin"
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "mine.too")
    assert external_modules() == "mine.too,ctpo.engines.verl.plugin"


def test_a_resumed_run_logs_elsewhere_and_does_not_evaluate_the_start_again(tmp_path):
    recipe = load_recipe("tiny", ON_VERL)
    first = composed(recipe, tmp_path)
    second = composed(recipe, tmp_path, start=Start(2, 4), evaluate_first=False)
    before, after = flat(first), flat(second)
    different = {key.rpartition(".")[2] for key in before if before[key] != after[key]}
    assert different == {"VERL_FILE_LOGGER_PATH", "val_before_train"}


def test_the_agent_loop_understands_what_it_is_told(tmp_path):
    from ctpo.engines.verl.episodes.settings import LoopSettings
    from ctpo.training.policy import episode_settings

    for changes in (ON_VERL, [*ON_VERL, "rollout.max_output_tokens=50"]):
        recipe = load_recipe("tiny", changes)
        custom = OmegaConf.to_object(composed(recipe, tmp_path).actor_rollout_ref.rollout.custom)
        assert isinstance(custom, dict)
        told = LoopSettings.read(custom["episodes"])
        episode = told.episode(recipe.rollout.max_response_tokens)
        assert episode == episode_settings(recipe)
        assert told.system_message == ""  # it is in the problems
        assert told.sandbox.timeout == recipe.sandbox.timeout
