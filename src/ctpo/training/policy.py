"""What a recipe says of answering problems, and a generator as a policy that does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ctpo.evaluation import Evaluation, Policy, evaluate
from ctpo.evaluation.rewards import Reward, Rewards
from ctpo.references import find_function
from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem
from ctpo.tir import EpisodeSettings, Generator, Trajectory, run_episodes
from ctpo.tir.episode import Message
from ctpo.training.listening import Listener
from ctpo.training.recipe.recipe import Recipe, SandboxSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def episode_settings(recipe: Recipe) -> EpisodeSettings:
    """Return what an episode of the recipe may use."""
    characters = recipe.rollout.max_output_chars
    return EpisodeSettings(
        max_response_tokens=recipe.rollout.max_response_tokens,
        max_calls=recipe.rollout.max_calls,
        max_output_tokens=recipe.rollout.max_output_tokens,
        **({} if characters is None else {"max_output_chars": characters}),
        chat_template_kwargs=dict(recipe.model.chat_template_kwargs),
        protocol=recipe.rollout.tool_protocol,
        max_failure_share=recipe.sandbox.max_failure_share,
    )


def own_generator(recipe: Recipe) -> Callable[..., Generator] | None:
    """Return the user's function from the trainer to what samples; None without.

    Raises:
        ValueError: It cannot be found or called.
    """
    name = recipe.rollout.generator
    return None if name is None else find_function(name, "rollout.generator", ("trainer",))


def check_own_parts(recipe: Recipe) -> None:
    """Find out whether all parts of the user's that a recipe names are there and can be used.

    Raises:
        ValueError: One is not; names the field.
    """
    Rewards(recipe.rewards)
    own_generator(recipe)
    _ = recipe.rollout.tool_protocol


def start_sandbox(settings: SandboxSection) -> Sandbox:
    """Return the sandbox that a recipe describes; entering it starts it."""
    return Sandbox(
        timeout=settings.timeout,
        memory_mb=settings.memory_mb,
        preload=settings.preload,
        allow_weak=settings.allow_weak,
    )


def instruct(problem: Problem, instructions: str | None) -> Problem:
    """Return the problem with the instructions as its system message, unless it has one."""
    if instructions is None or problem.messages[0]["role"] == "system":
        return problem
    system = {"role": "system", "content": instructions}
    return dataclasses.replace(problem, messages=(system, *problem.messages))


def episode_policy(
    generator: Generator,
    tokenizer: PreTrainedTokenizerBase,
    sandbox: Sandbox,
    settings: EpisodeSettings,
    temperature: float,
) -> Policy:
    """Return a policy that answers by episodes.

    Args:
        generator: Samples the answers.
        tokenizer: The generator's tokenizer.
        sandbox: A started sandbox.
        settings: What an episode may use.
        temperature: Divides the logits; 0 takes the likeliest token.
    """

    def answer(chats: Sequence[Sequence[Message]], seed: int) -> list[Trajectory]:
        return run_episodes(
            generator, sandbox, tokenizer, chats, settings, temperature=temperature, seed=seed
        )

    return answer


def measure(
    generator: Generator,
    tokenizer: PreTrainedTokenizerBase,
    sandbox: Sandbox,
    problems: Sequence[Problem],
    settings: EpisodeSettings,
    *,
    samples_per_problem: int,
    temperature: float,
    batch_size: int,
    seed: int,
    listener: Listener,
    reward: Reward | None = None,
) -> tuple[Evaluation, Evaluation]:
    """Return a model's accuracy on problems, sampled (avg@k) and greedy.

    Args:
        generator: Answers the problems.
        tokenizer: Its tokenizer.
        sandbox: A started sandbox.
        problems: What to ask.
        settings: What an episode may use.
        samples_per_problem: The k of avg@k.
        temperature: Of the sampled answers.
        batch_size: Episodes run side by side.
        seed: Of the sampling.
        listener: Is told how far it is.
        reward: Whose values are averaged, in place of our grades.
    """
    results = []
    for name, heat, samples in (
        ("sampled", temperature, samples_per_problem),
        ("greedy", 0.0, 1),
    ):
        listener.phase(f"evaluation, {name}", len(problems) * samples)
        results.append(
            evaluate(
                problems,
                episode_policy(generator, tokenizer, sandbox, settings, heat),
                samples_per_problem=samples,
                batch_size=batch_size,
                seed=seed,
                on_progress=lambda done, _total: listener.progress(done),
                reward=reward,
            )
        )
    return results[0], results[1]
