from ctpo.tasks import generate
from ctpo.training.policy import episode_settings, instruct
from ctpo.training.recipe.loading import load_recipe
from ctpo.training.run import problems


def test_instructions_come_first_and_replace_none_that_are_there():
    (problem,) = generate(1, seed=0)
    assert instruct(problem, None) == problem
    told = instruct(problem, "Use the tool.")
    assert [m["role"] for m in told.messages] == ["system", "user"]
    assert told.messages[0]["content"] == "Use the tool."
    assert told.answer == problem.answer
    assert instruct(told, "Something else.") == told


def test_a_recipe_decides_what_an_episode_may_use():
    recipe = load_recipe(
        "tiny",
        [
            "rollout.max_response_tokens=11",
            "rollout.max_calls=3",
            "rollout.max_output_chars=22",
            "sandbox.max_failure_share=0.5",
            "model.chat_template_kwargs={enable_thinking=false}",
        ],
    )
    settings = episode_settings(recipe)
    assert (settings.max_response_tokens, settings.max_calls) == (11, 3)
    assert (settings.max_output_chars, settings.max_failure_share) == (22, 0.5)
    assert settings.chat_template_kwargs == {"enable_thinking": False}


def test_the_seed_decides_what_is_trained_on_and_not_what_is_held_out():
    first, second = (problems(load_recipe("tiny", [f"seed={s}"])) for s in (0, 1))
    assert {p.id for p in first[0]} != {p.id for p in second[0]}
    assert first[1] == second[1]
    assert not {p.id for p in first[0]} & {p.id for p in first[1]}
    assert len(first[1]) == 128


def test_a_hard_recipe_has_its_share_of_hard_problems_on_both_sides():
    train, held_out = problems(load_recipe("tiny-hard"))
    for side in (train, held_out):
        assert sum(p.level == 3 for p in side) / len(side) == 0.25
