"""Episodes for TRL: a `rollout_func` and a reward function that share the trajectories."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trl import GRPOTrainer

from ctpo.engines.trl.scores import RolloutScores
from ctpo.grading import grade
from ctpo.tir import (
    EpisodeSettings,
    EpisodeTimes,
    Generator,
    Trajectory,
    run_episodes,
)
from ctpo.tir.episode import Message
from ctpo.tir.transformers_generator import TransformersGenerator

if TYPE_CHECKING:
    from ctpo.sandbox import Sandbox


Score = Callable[[Sequence[Trajectory], Sequence[int]], list[float | None]]


class EpisodeRollout:
    """Collects tool-integrated episodes for `GRPOTrainer(rollout_func=...)`.

    The sampling seed of a batch follows from `seed`, the trainer's step and its process, so a
    resumed run draws what the uninterrupted one would have drawn.

    Args:
        sandbox: A started sandbox.
        settings: What an episode may use.
        seed: Of the sampling.
        generator: Makes the generation back end of a trainer; by default the KV-cache loop on the
            trainer's own model.
        score: From a batch of trajectories, and the data set's `index` of each, to their rewards;
            by default `grading.grade` against the data set's `answer`.

    Attributes:
        trajectories: The last batch, in order. Rewards, advantages and old log-probabilities are
            filled in as they become known.
        times: Seconds spent generating and running programs, since construction.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        settings: EpisodeSettings,
        *,
        seed: int,
        generator: Callable[[GRPOTrainer], Generator] | None = None,
        score: Score | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._settings = settings
        self._seed = seed
        self._make_generator = generator or own_model
        self._generator: Generator | None = None
        self._score = score
        self.trajectories: list[Trajectory] = []
        self.times = EpisodeTimes()

    def generator(self, trainer: GRPOTrainer) -> Generator:
        """Return the back end that samples from the trainer's policy as it is now."""
        if self._generator is None:
            self._generator = self._make_generator(trainer)
        return self._generator

    def __call__(
        self, prompts: Sequence[Sequence[Message]], trainer: GRPOTrainer
    ) -> dict[str, list[Any]]:
        """Run one episode per prompt and return what TRL's `rollout_func` must.

        Raises:
            SandboxFailure: Too many programs failed by the sandbox's own fault.
        """
        place = f"{self._seed} {trainer.state.global_step} {trainer.accelerator.process_index}"
        self.trajectories = run_episodes(
            self.generator(trainer),
            self._sandbox,
            trainer.processing_class,
            prompts,
            self._settings,
            temperature=trainer.temperature,
            seed=random.Random(place).getrandbits(63),
            times=self.times,
        )
        return {
            "prompt_ids": [t.prompt_ids for t in self.trajectories],
            "completion_ids": [t.response_ids for t in self.trajectories],
            "logprobs": [t.sampler_logprobs for t in self.trajectories],
            "env_mask": [[int(policy) for policy in t.mask] for t in self.trajectories],
            "trajectory": list(self.trajectories),
        }

    def reward(
        self,
        trajectory: Sequence[Trajectory],
        answer: Sequence[str],
        **columns: Any,  # noqa: ANN401
    ) -> list[float | None]:
        """Grade the trajectories: by default 1 right, 0 wrong, None where nobody can tell.

        Only the policy's own text is graded: a box printed by a program is no answer. A trajectory
        with a program that the sandbox failed to run is not graded at all.

        Args:
            trajectory: The batch.
            answer: The data set's right answers.
            **columns: The data set's other columns; `id` and `source` are kept if present, and
                `index` is what a `score` needs.

        Raises:
            ValueError: Not one answer of the batch could be graded.
        """
        ids = columns.get("id", [""] * len(answer))
        sources = columns.get("source", [""] * len(answer))
        if self._score is not None:
            rewards = self._score(trajectory, columns["index"])
        else:
            rewards = [
                None if t.sandbox_failed else grade(t.assistant_text, right).score
                for t, right in zip(trajectory, answer, strict=True)
            ]
        if all(reward is None for reward in rewards):
            raise ValueError(
                f"none of the {len(rewards)} answers of this batch could be graded; the first "
                f"right answer is {answer[0]!r}: is it what it should be?"
            )
        self.trajectories = [
            dataclasses.replace(t, reward=reward, problem_id=str(problem), source=source)
            for t, reward, problem, source in zip(trajectory, rewards, ids, sources, strict=True)
        ]
        return rewards

    def scored(self, scores: RolloutScores) -> None:
        """Fill in what the trainer computed; the `on_rollout` of a `CTPOTrainer`."""
        old: Sequence[list[float] | None] = scores.old_logprobs or [None] * len(scores.advantages)
        self.trajectories = [
            dataclasses.replace(
                t,
                advantage=advantage,
                old_logprobs=None
                if logprobs is None
                else [x if m else 0.0 for x, m in zip(logprobs, t.mask, strict=True)],
            )
            for t, advantage, logprobs in zip(
                self.trajectories, scores.advantages, old, strict=True
            )
        ]


def own_model(trainer: GRPOTrainer) -> Generator:
    """Return what samples from a trainer's own model, as it is now."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return TransformersGenerator(
        model,
        trainer.processing_class,
        trainer.eos_token_ids,
        precision=trainer.accelerator.autocast,
    )
