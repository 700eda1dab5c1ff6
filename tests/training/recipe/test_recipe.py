import json
import tomllib

import pytest

from ctpo.objective import PRESETS, preset
from ctpo.tir.protocols import PROTOCOLS
from ctpo.training.policy import episode_settings
from ctpo.training.recipe.loading import (
    RecipeError,
    dump_recipe,
    load_recipe,
    recipe_changes,
    shipped_recipes,
)
from ctpo.training.recipe.recipe import Recipe, Section
from ctpo.training.trl.config import trl_config


def test_the_promised_recipes_are_shipped():
    methods = ["", "-grpo", "-gspo"]
    large = {f"qwen3-{size}{method}" for size in ("4b", "14b") for method in methods}
    assert set(shipped_recipes()) == large | {
        "tiny",
        "tiny-hard",
        "tiny-long",
        "tiny-verl",
        "qwen3-4b-1gpu",
    }


def test_a_methods_own_reduction_and_advantages_are_taken_unless_others_are_named():
    def trl(*overrides):
        config = trl_config(load_recipe("tiny", overrides), "unused")
        return config.loss_type, config.scale_rewards

    assert trl() == ("grpo", "group")
    assert trl("objective.preset=dapo") == ("dapo", "group")
    assert trl("objective.preset=dr-grpo") == ("dr_grpo", "none")
    named = ["objective.reduction=token-mean", "objective.advantages=normalized"]
    assert trl("objective.preset=dr-grpo", *named) == ("dapo", "group")


@pytest.mark.parametrize("name", PRESETS)
def test_every_method_can_be_named_in_a_recipe(name):
    recipe = load_recipe("tiny", [f"objective.preset={name}"])
    assert recipe.objective.build() == preset(name)
    assert trl_config(recipe, "unused").build_objective() == preset(name)
    again = Recipe.model_validate(tomllib.loads(dump_recipe(recipe)))
    assert again == recipe


def test_further_parameters_reach_the_objective_under_their_names():
    changes = ["objective.preset=ctpo-exact-kl", "objective.parameters.delta_low=0.01"]
    recipe = load_recipe("tiny", [*changes, "objective.parameters.delta_dual=off"])
    expected = preset("ctpo-exact-kl", delta_low=0.01, delta_dual=None)
    assert recipe.objective.build() == expected
    assert trl_config(recipe, "unused").build_objective() == expected
    literal = load_recipe("tiny", ["objective.parameters.gradient=literal"])
    assert trl_config(literal, "unused").build_objective() == preset("ctpo", gradient="literal")


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective.import=own_parts", "objective.preset=tempered"],
        ["objective.import=own_parts:tempered"],
        ["objective.preset=own_parts:tempered"],
    ],
)
def test_an_objective_of_ones_own_is_imported(overrides, registering):
    recipe = load_recipe("tiny", [*overrides, "objective.parameters.until=8"])
    expected = preset("tempered", until=8)  # type: ignore[call-overload]
    assert recipe.objective.build() == expected
    assert trl_config(recipe, "unused").build_objective() == expected
    assert recipe.objective.reduction_name == "seq-mean-token-mean"
    again = Recipe.model_validate(tomllib.loads(dump_recipe(recipe)))
    assert again == recipe


def test_numbers_may_be_text_and_off_may_be_false():
    recipe = load_recipe("tiny", ['objective.eps_low="1e-3"', "objective.dual_clip=false"])
    assert recipe.objective.build() == preset("ctpo-printed", eps_low=1e-3)
    assert Recipe.model_validate(tomllib.loads(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_under_its_own_name(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_dumped_recipe_is_the_same_recipe(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "recipe.toml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe


def test_the_tiny_recipe_is_the_published_setting_in_small():
    recipe = load_recipe("tiny")
    assert (recipe.rollout.prompts_per_batch, recipe.rollout.responses_per_prompt) == (16, 8)
    assert (recipe.optimization.updates_per_batch, recipe.optimization.batches) == (16, 60)
    assert recipe.objective.build() == preset("ctpo")
    config = trl_config(recipe, "unused")
    assert config.steps_per_rollout == 16
    assert config.max_steps == 960
    assert config.generation_batch_size == 128
    assert config.loss_type == "grpo"


def test_the_hard_recipe_has_a_quarter_of_three_digit_problems():
    assert load_recipe("tiny-hard").data.hard_fraction == 0.25


def test_the_large_recipe_translates_to_the_engine_as_shipped():
    config = trl_config(load_recipe("qwen3-4b-1gpu"), "unused")
    assert config.gradient_accumulation_steps * config.per_device_train_batch_size * 16 == 64 * 8
    assert config.steps_per_rollout == 16
    assert config.save_steps == 20 * 16
    assert config.chat_template_kwargs == {"enable_thinking": False}
    assert config.lr_scheduler_type == "constant_with_warmup"
    assert (config.bf16, config.cast_lm_head_to_fp32, config.gradient_checkpointing) == (True,) * 3
    assert (config.use_vllm, config.vllm_mode) == (True, "colocate")
    assert config.vllm_importance_sampling_mode == "sequence_truncate"
    assert config.vllm_importance_sampling_clip_max == 5.0
    assert config.vllm_max_model_length == 10_000
    assert config.max_completion_length == 8000


def test_an_empty_value_removes_a_key():
    assert load_recipe("qwen3-4b-1gpu", ["model.lora="]).model.lora is None
    assert load_recipe("tiny", ["threads="]).threads is None


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("optimization.learning_rate=0.5", "learning_rate", 0.5),
        ("optimization.weight_decay=0.25", "weight_decay", 0.25),
        ("optimization.max_grad_norm=0.5", "max_grad_norm", 0.5),
        ("optimization.adam_epsilon=0.125", "adam_epsilon", 0.125),
        ("optimization.warmup_fraction=0.5", "warmup_steps", 480),
        ("optimization.schedule=constant", "lr_scheduler_type", "constant_with_warmup"),
        ("optimization.schedule=linear", "lr_scheduler_type", "linear"),
        ("optimization.checkpoint_every=3", "save_steps", 48),
        ("optimization.batches=7", "max_steps", 112),
        ("optimization.micro_batch=2", "gradient_accumulation_steps", 4),
        ("rollout.temperature=0.5", "temperature", 0.5),
        ("rollout.max_response_tokens=77", "max_completion_length", 77),
        ("rollout.responses_per_prompt=16", "num_generations", 16),
        ("seed=11", "seed", 11),
    ],
)
def test_every_setting_reaches_the_engine(override, name, value):
    assert getattr(trl_config(load_recipe("tiny", [override]), "unused"), name) == value


def test_overrides_reach_their_field():
    recipe = load_recipe(
        "tiny", ["objective.preset=gspo", "seed=3", "objective.clip_low=0.1", 'name="x"']
    )
    assert (recipe.objective.preset, recipe.seed, recipe.name) == ("gspo", 3, "x")
    assert recipe.objective.build() == preset("gspo", clip_low=0.1)


def test_the_dual_clip_can_be_switched_off():
    recipe = load_recipe("tiny", ["objective.dual_clip=off"])
    assert recipe.objective.build() == preset("ctpo-printed")
    assert trl_config(recipe, "unused").build_objective() == preset("ctpo-printed")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.presett=gspo"], r"objective.presett is unknown \(did you mean 'preset'\?\)"),
        (["sed=3"], r"sed is unknown \(did you mean 'seed'\?\)"),
        (["model.tiny.layer=3"], r"model.tiny.layer is unknown \(did you mean 'layers'\?\)"),
        (["objective.preset=ctop"], "ctpo"),
        (["objective.preset=grpo", "objective.eps_low=0.1"], "eps_low"),
        (["rollout.top_p=0.9"], "rollout.top_p is refused: sampling must cover"),
        (["seed=-1"], "seed is -1: .*greater than or equal to 0"),
        (["seed=5000000000"], "seed is 5000000000: .*less than 4294967296"),
        (["seed=true"], "seed: .*it is a truth value"),
        (["optimization.learning_rate=true"], "learning_rate: .*it is a truth value"),
        (["objective.eps_low=true"], "objective.eps_low is True; it must be a number"),
        (["threads=9999"], "threads is 9999: .*less than or equal to 512"),
        (["name=../elsewhere"], "'../elsewhere'; it must be a file's name"),
        (["name=a/b"], "'a/b'; it must be a file's name"),
        (['name=".a"'], "'.a'; it must be a file's name"),
        (['name=""'], "''; it must be a file's name"),
        (["verl.sequence_parallel=2"], "verl.sequence_parallel=2: the engine is trl, where it has"),
        (["seed"], "override 'seed' is not of the form section.key=value"),
        (["name.x=1"], "name is a value, not a section"),
        (["optimization.updates_per_batch=7"], "updates_per_batch is 7; it must divide the 128"),
        (["optimization.micro_batch=5"], "micro_batch is 5; it must divide the 8"),
        (['model.path="x"'], "exactly one of path and tiny"),
        (["data.train_problems=3"], "data.train_problems is 3; one batch takes 16"),
        (["vllm.sleep=true"], r"a \[vllm\] section is for a model from a path"),
        (["objective.dual_clip=of"], "^objective.dual_clip is 'of'; it must be a number.*'off'$"),
        (["objective.import=nothing_of_mine"], "^objective.import is 'nothing_of_mine', but there"),
        (["objective.imprt=x"], r"objective.imprt is unknown \(did you mean 'import'\?\)"),
        (["objective.reduction=mean"], "reduction is 'mean'; it must be one of seq-mean"),
        (["objective.parameters.tau_pos=1"], "'tau_pos'; did you mean"),
        (
            ["objective.eps_low=0.1", "objective.parameters.eps_low=0.2"],
            "eps_low is given twice",
        ),
        (["model.tiny.heads=3"], "heads is 3; it must be a multiple of key_value_heads, 2"),
        (["rollout.temperature=hot"], "rollout.temperature is 'hot'"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(overrides, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("tiny", overrides)


def test_a_section_without_effect_is_refused():
    with pytest.raises(RecipeError, match="warm_start has no effect on a model from a path"):
        load_recipe("qwen3-4b-1gpu", ["warm_start.max_steps=3"])
    with pytest.raises(RecipeError, match="hard_fraction has no effect on problems from files"):
        load_recipe("qwen3-4b-1gpu", ["data.hard_fraction=0.5"])


def test_an_unknown_recipe_names_the_nearest(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe 'tinyhard' \(did you mean 'tiny-hard'\?\)"):
        load_recipe("tinyhard")
    with pytest.raises(RecipeError, match="there is no file"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(str(tmp_path / "bad.toml"))


def sections(section=Recipe):
    yield section
    for field in section.model_fields.values():
        for option in [field.annotation, *getattr(field.annotation, "__args__", [])]:
            if isinstance(option, type) and issubclass(option, Section):
                yield from sections(option)


def test_every_knob_says_what_it_does():
    for section in sections():
        for name, field in section.model_fields.items():
            kinds = [field.annotation, *getattr(field.annotation, "__args__", [])]
            is_section = any(isinstance(k, type) and issubclass(k, Section) for k in kinds)
            assert is_section and section is Recipe or field.description, f"{section}.{name}"


def test_dumped_recipes_hold_every_default():
    values = tomllib.loads(dump_recipe(load_recipe("tiny")))
    assert values["optimization"]["max_grad_norm"] == 1.0
    assert values["model"]["tiny"]["hidden_size"] == 128


def test_a_recipe_has_its_parents_values_but_for_its_own(tmp_path):
    (tmp_path / "child.toml").write_text(
        'parent = "tiny"\nname = "child"\n[objective]\npreset = "grpo"\n[model.tiny]\nlayers = 2\n'
    )
    child, parent = load_recipe(str(tmp_path / "child.toml")), load_recipe("tiny")
    assert child == parent.model_copy(
        update={
            "name": "child",
            "objective": load_recipe("tiny", ["objective.preset=grpo"]).objective,
            "model": load_recipe("tiny", ["model.tiny.layers=2"]).model,
        }
    )


def test_parents_have_parents_and_lie_beside_their_child(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text('parent = "tiny"\nname = "a"\nseed = 3\n')
    (tmp_path / "b.toml").write_text('parent = "a.toml"\nname = "b"\n')
    monkeypatch.chdir(tmp_path.parent)
    found = load_recipe(str(tmp_path / "b.toml"))
    assert (found.name, found.seed, found.threads) == ("b", 3, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('parent = "a.toml"', "each other's parents"),
        ('parent = "tinny"', r"no recipe 'tinny' \(did you mean 'tiny'\?\)"),
        ("parent = 3", "parent is 3; it must be"),
        ('parent = "b.toml"', "there is no file"),
    ],
)
def test_a_parent_that_cannot_be_is_named(text, message, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(tmp_path / "a.toml"))


def test_the_protocol_reaches_the_episodes_and_its_text_the_problems():
    large = "qwen3-4b-1gpu"
    for name in ("fence", "hermes"):
        changes = [f"rollout.protocol={name}", "data.instructions=protocol"]
        recipe = load_recipe(large, changes)
        assert episode_settings(recipe).protocol is PROTOCOLS[name]
        assert recipe.system_message == PROTOCOLS[name].instructions
    assert load_recipe(large, ["data.instructions=Think."]).system_message == "Think."
    assert load_recipe("tiny").system_message is None


def test_outputs_are_limited_in_characters_or_in_tokens():
    tokens = load_recipe("tiny", ["rollout.max_output_tokens=50"])
    assert tokens.rollout.max_output_chars is None
    assert episode_settings(tokens).max_output_tokens == 50
    assert Recipe.model_validate(tomllib.loads(dump_recipe(tokens))) == tokens
    characters = episode_settings(load_recipe("tiny", ["rollout.max_output_chars=50"]))
    assert (characters.max_output_chars, characters.max_output_tokens) == (50, None)


def test_the_cap_on_weights_against_the_generator_reaches_trl():
    large = "qwen3-4b-1gpu"
    capped = trl_config(load_recipe(large, ["rollout.mismatch_cap=3"]), "unused")
    assert capped.vllm_importance_sampling_correction
    assert capped.vllm_importance_sampling_clip_max == 3
    free = trl_config(load_recipe(large, ["rollout.mismatch_cap="]), "unused")
    assert not free.vllm_importance_sampling_correction


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("tiny", ["rollout.mismatch_cap=3"], "mismatch_cap is 3.0, which has no effect on TRL"),
        ("qwen3-4b-1gpu", ["rollout.mismatch_level=prefix"], "TRL has no such weight"),
    ],
)
def test_what_trl_cannot_do_is_refused_by_name(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        trl_config(load_recipe(name, overrides), "unused")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.protocol=plain"], "the protocol plain calls no tool, so it must be 0"),
        (["rollout.protocol=hermes"], "the warm start of a tiny model teaches fence"),
        (["rollout.mismatch_level=prefix"], "which has no effect without a mismatch_cap"),
        (
            ["rollout.max_output_chars=9", "rollout.max_output_tokens=9"],
            "max_output_chars is 9 and max_output_tokens is 9; give one",
        ),
        (["engine=vrl"], "engine is 'vrl'"),
        (["verl.gpus=3"], "verl.gpus is unknown"),
    ],
)
def test_what_contradicts_itself_is_refused(overrides, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("tiny", overrides)


def test_the_engine_is_remembered_with_its_section():
    assert load_recipe("tiny").verl is None
    chosen = load_recipe("tiny", ["engine=verl"])
    again = Recipe.model_validate(tomllib.loads(dump_recipe(chosen)))
    assert again == chosen
    assert again.verl is not None and again.verl.gpus_per_node == 8


def test_what_differs_from_the_shipped_recipe_is_told_key_by_key():
    changed = load_recipe("tiny", ["seed=3", "objective.preset=grpo", "model.tiny.layers=1"])
    assert recipe_changes(changed) == {
        "from": "tiny",
        "changes": {
            "seed": [0, 3],
            "model.tiny.layers": [3, 1],
            "objective.preset": ["ctpo", "grpo"],
        },
    }
    assert recipe_changes(load_recipe("tiny"))["changes"] == {}
    own = recipe_changes(load_recipe("tiny", ["name=mine", "seed=3"]))
    assert own["from"] is None and own["changes"]["seed"] == [None, 3]
    assert "model.tiny.layers" not in own["changes"]  # a default


@pytest.mark.parametrize("recipe", ["tiny", "qwen3-4b", "qwen3-4b-grpo"])
def test_a_window_without_an_end_is_told_in_json(recipe):
    endless = load_recipe(recipe, ["objective.preset=grpo", "objective.clip_high=inf"])
    text = json.dumps(recipe_changes(endless), allow_nan=False)
    assert json.loads(text)["changes"]["objective.clip_high"][1] == "inf"


@pytest.mark.parametrize(
    "key",
    [
        f"{section}.{name}"
        for section, values in load_recipe("tiny").model_dump(exclude={"objective"}).items()
        if isinstance(values, dict)
        for name, value in values.items()
        if isinstance(value, float)
    ],
)
def test_no_number_of_a_recipe_is_infinite_or_none(key):
    for value in ("inf", "-inf", "nan"):
        with pytest.raises(RecipeError, match=rf"{key} is {value}"):
            load_recipe("tiny", [f"{key}={value}"])


def test_a_recipe_that_is_no_text_is_told(tmp_path):
    (tmp_path / "a.toml").write_bytes('name = "Grün"'.encode("latin-1"))
    with pytest.raises(RecipeError, match="a.toml is not UTF-8"):
        load_recipe(str(tmp_path / "a.toml"))
