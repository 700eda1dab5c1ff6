"""Checkpoints of a run, measured: held-out problems are answered by them in real episodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ctpo.evaluation.answers import Question, Reply, graded, questions
from ctpo.evaluation.asking import BatchModel
from ctpo.objective import Objective
from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem
from ctpo.tir import Trajectory
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.listening import Listener
from ctpo.training.measuring.gradients import (
    Bench,
    Measurement,
    Sampled,
    less_baseline,
    load_for_gradients,
    mean_rewards,
    trainable,
)
from ctpo.training.models import quiet_libraries
from ctpo.training.policy import episode_policy, episode_settings, start_sandbox
from ctpo.training.problems import problems as problems_of
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OWN = "the run's objective"


@dataclass(frozen=True)
class MeasureRequest:
    """What to measure.

    Attributes:
        run: A run directory with checkpoints.
        old: Batch after which the old policy was saved; None takes one near a third of the run.
        after: How many batches later the new policies were saved.
        prompts: Most held-out problems.
        answers: Answers of the old policy per problem.
        baseline_answers: Further answers of the old policy per problem, whose mean reward is the
            baseline; they are used for nothing else.
        reference_answers: Answers of each new policy per problem, for the on-policy gradient.
        seed: Of sampling, projection and bootstrap.
        objectives: What is measured besides `theory.measured.ESTIMATORS` and the run's own
            objective, by name.
        batch_size: Episodes run side by side.
    """

    run: Path
    old: int | None = None
    after: tuple[int, ...] = (1, 2, 4, 8)
    prompts: int = 128
    answers: int = 6
    baseline_answers: int = 4
    reference_answers: int = 8
    seed: int = 0
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    batch_size: int = 256

    def __post_init__(self) -> None:
        if not self.after or min(self.after) < 1 or len(set(self.after)) < len(self.after):
            raise ValueError(
                f"after is {self.after}; it must be different numbers of batches from 1, e.g. 1, 2"
            )
        for name in ("prompts", "answers", "baseline_answers", "reference_answers", "batch_size"):
            least = 2 if name == "prompts" else 1
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


def checkpoints(run: RunDirectory) -> dict[int, Path]:
    """Return the whole checkpoints of a run by batch."""
    updates = run.recipe.optimization.updates_per_batch
    found = {
        int(path.name.removeprefix("checkpoint-")) // updates: path
        for path in run.checkpoints.glob("checkpoint-*")
        if (path / "trainer_state.json").is_file()
    }
    return dict(sorted(found.items()))


def choose_old(available: Sequence[int], request: MeasureRequest) -> int:
    """Return the batch of the old policy.

    Raises:
        ValueError: If a checkpoint that is needed is not there; says which are.
    """

    def missing(old: int) -> list[int]:
        return [b for b in (old, *(old + a for a in request.after)) if b not in available]

    kept = ", ".join(map(str, available)) or "none"
    if request.old is not None:
        if missing(request.old):
            raise ValueError(
                f"{request.run} has no checkpoint after batch {missing(request.old)[0]}; there are "
                f"those after {kept}. Train with --set optimization.checkpoint_every=1"
            )
        return request.old
    possible = [b for b in available if not missing(b)]
    if not possible:
        raise ValueError(
            f"{request.run} has no checkpoints {', '.join(map(str, request.after))} batches after "
            f"another; there are those after {kept}. Train with --set "
            "optimization.checkpoint_every=1, or say --after"
        )
    return min(possible, key=lambda b: abs(3 * b - max(available)))


def measure_run(request: MeasureRequest, listener: Listener) -> Measurement:
    """Measure bias and variance of every estimator on checkpoints of a run.

    Args:
        request: What to measure.
        listener: Is told how far it is.

    Raises:
        FileNotFoundError: There is no such run.
        ValueError: A checkpoint is missing, or holds adapters only.
        SandboxUnavailable: Programs cannot be isolated on this machine.
        SandboxFailure: Too many programs failed by the sandbox's own fault.
    """
    run = RunDirectory.open(request.run)
    recipe = run.recipe
    if recipe.model.lora is not None:
        raise ValueError(
            f"{request.run} trained adapters; its checkpoints are no whole models, and gradients "
            "by all parameters are not what it followed"
        )
    found = checkpoints(run)
    old = choose_old(list(found), request)
    quiet_libraries()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    problems = problems_of(recipe)[1][: request.prompts]
    with start_sandbox(recipe.sandbox) as sandbox:
        lab = _Lab(request, recipe, problems, sandbox, listener)
        own = {OWN: recipe.objective.build(), **request.objectives}
        bench = Bench(len(problems), recipe.rollout.temperature, request.seed, listener, own)
        model, tokenizer = load_for_gradients(found[old])
        data = lab.sample("old policy", model, tokenizer, request.answers, 0)
        apart = lab.sample("baseline", model, tokenizer, request.baseline_answers, 1)
        baseline = mean_rewards(apart, len(problems))
        before = bench.logprobs("old log-probs", model, data.trajectories)
        distances, unknown = [], data.unknown + apart.unknown
        for number, after in enumerate(request.after):
            model, tokenizer = load_for_gradients(found[old + after])
            fresh = lab.sample(
                f"policy {after} on", model, tokenizer, request.reference_answers, 2 + number
            )
            unknown += fresh.unknown
            distances.append(
                bench.distance(
                    after,
                    model,
                    data,
                    before,
                    less_baseline(data, baseline),
                    fresh,
                    less_baseline(fresh, baseline),
                )
            )
    size = sum(p.numel() for p in trainable(model))
    return Measurement(old, distances, unknown, size)


class _Lab:
    """Samples and grades."""

    def __init__(
        self,
        request: MeasureRequest,
        recipe: Recipe,
        problems: Sequence[Problem],
        sandbox: Sandbox,
        listener: Listener,
    ) -> None:
        self._request = request
        self._recipe = recipe
        self._problems = problems
        self._sandbox = sandbox
        self._listener = listener

    def sample(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        answers: int,
        stream: int,
    ) -> Sampled:
        """Return graded answers to every problem, each stream with random numbers of its own."""
        seed = self._request.seed * 1009 + stream
        asked = questions([("held-out", one) for one in self._problems], answers, seed)
        prompt = {problem.id: number for number, problem in enumerate(self._problems)}
        self._listener.phase(f"{name}, answers", len(asked))
        kept: list[Trajectory] = []
        prompts: list[int] = []
        done = 0

        def keep(replies: Sequence[tuple[Question, Reply]]) -> None:
            nonlocal done
            for question, reply in replies:
                reward, episode = graded(question, reply).score, reply.response
                assert isinstance(episode, Trajectory), "a policy's episodes are in tokens"
                if reward is not None and any(episode.mask):
                    kept.append(dataclasses.replace(episode, reward=reward))
                    prompts.append(prompt[question.problem.id])
            done += len(replies)
            self._listener.progress(done)

        policy = episode_policy(
            TransformersGenerator(model, tokenizer),
            tokenizer,
            self._sandbox,
            episode_settings(self._recipe),
            self._recipe.rollout.temperature,
        )
        BatchModel(policy, seed, self._request.batch_size).ask(asked, lambda _: True, keep)
        return Sampled(kept, prompts, len(asked) - len(kept))
