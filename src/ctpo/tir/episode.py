"""Tool-integrated episodes: generate, find the call, execute, append, go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctpo.sandbox import Sandbox
from ctpo.tir.calls import Call
from ctpo.tir.generation import Generator
from ctpo.tir.open_episode import EpisodeRules, OpenEpisode
from ctpo.tir.programs import run_programs
from ctpo.tir.settings import EpisodeSettings, Message
from ctpo.tir.tools import Tools
from ctpo.tir.trajectory import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "EpisodeSettings",
    "EpisodeTimes",
    "Message",
    "SandboxFailure",
    "check_failures",
    "run_episodes",
]


@dataclass
class EpisodeTimes:
    """Seconds spent, added up over the calls of `run_episodes` that were given this object."""

    generate: float = 0.0
    tools: float = 0.0


# Fewer failures than this are an accident, whatever their share of a small batch.
_FAILURES_THAT_COUNT = 3


class SandboxFailure(RuntimeError):
    """The sandbox, not the programs, failed: no reward computed from these episodes is right."""


def run_episodes(
    generator: Generator,
    sandbox: Sandbox,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    settings: EpisodeSettings,
    *,
    temperature: float,
    seed: int,
    times: EpisodeTimes | None = None,
) -> list[Trajectory]:
    """Run one episode per prompt, all side by side, and return them in order.

    Each round samples every open episode up to its next call, its end or its budget, then runs all
    the round's programs concurrently and appends their outputs. Output tokens are masked: the
    policy did not choose them.

    Args:
        generator: The policy.
        sandbox: A started sandbox.
        tokenizer: The policy's tokenizer, with a chat template.
        prompts: Chat messages, one list per episode.
        settings: What an episode may use.
        temperature: Divides the logits; 0 takes the likeliest token.
        seed: Makes the sampling repeatable.
        times: Receives the seconds spent, if given.

    Raises:
        SandboxFailure: Too many programs failed in the sandbox itself: no grade of these episodes
            would mean anything.
    """
    times = times or EpisodeTimes()
    rules = EpisodeRules(tokenizer, settings)
    episodes = [OpenEpisode(rules, ids) for ids in _encode_prompts(rules, prompts)]
    with Tools.of_episodes(settings.protocol.tools, len(episodes)) as tools:
        _run_rounds(generator, sandbox, episodes, tools, rules, temperature, seed, times)
    results = [result for episode in episodes for result in episode.results]
    failures = [result.failure for result in results if result.status == "sandbox-failure"]
    check_failures(failures, len(results), settings.max_failure_share)
    return [episode.trajectory() for episode in episodes]


def _run_rounds(
    generator: Generator,
    sandbox: Sandbox,
    episodes: Sequence[OpenEpisode],
    tools: Sequence[Tools],
    rules: EpisodeRules,
    temperature: float,
    seed: int,
    times: EpisodeTimes,
) -> None:
    """Take all episodes to their ends."""
    session = generator.open([e.prompt_ids for e in episodes], temperature=temperature, seed=seed)
    while rows := [i for i, episode in enumerate(episodes) if episode.finish is None]:
        started = time.perf_counter()
        sampled = session.generate(
            rows,
            [episodes[i].append for i in rows],
            [episodes[i].budget for i in rows],
            rules.stop,
        )
        generated = time.perf_counter()
        calls: list[tuple[int, Call]] = []
        for i, turn in zip(rows, sampled, strict=True):
            call = episodes[i].add_turn(turn)
            if call is not None:
                calls.append((i, call))
        outcomes = run_programs([call for _, call in calls], sandbox, [tools[i] for i, _ in calls])
        for (i, call), outcome in zip(calls, outcomes, strict=True):
            episodes[i].add_outcome(call, outcome)
        times.generate += generated - started
        times.tools += time.perf_counter() - generated


def check_failures(failures: Sequence[str | None], programs: int, most: float) -> None:
    """Stop where too many programs or tools gave no answer through no fault of the policy.

    Args:
        failures: Why, for each program that failed twice in the sandbox itself.
        programs: How many there were in all.
        most: The share that is allowed.

    Raises:
        SandboxFailure: There are more.
    """
    if len(failures) >= _FAILURES_THAT_COUNT and len(failures) / programs > most:
        raise SandboxFailure(
            f"{len(failures)} of {programs} programs failed twice in the sandbox, or tools failed, "
            f"not by what the policy wrote, more than the allowed share of {most}; rewards "
            f"would be wrong. The last of them: {failures[-1]}. `ctpo doctor` tells what is "
            "missing"
        )


def _encode_prompts(rules: EpisodeRules, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    # The answers to one problem come as equal prompts: encode each once.
    known: dict[str, list[int]] = {}
    encoded = []
    for messages in prompts:
        key = repr(messages)
        if key not in known:
            known[key] = rules.encode(messages)
        encoded.append(list(known[key]))
    return encoded
