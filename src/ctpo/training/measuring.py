"""Gradients of two checkpoints of a run, for `ctpo.theory` to judge the estimators by.

What needs models, episodes and the run directory is here; what is computed from per-trajectory
gradients is in `theory`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ctpo.grading import SCORES, grade
from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem
from ctpo.theory.measured import (
    ESTIMATORS,
    NO_RATIO,
    PromptSums,
    all_coefficients,
    by_position,
    qualities,
    weight_sample_size,
)
from ctpo.theory.measured_tables import Distance
from ctpo.theory.sketch import Sketch, trajectory_gradients
from ctpo.tir import Trajectory
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.libraries import quiet_libraries
from ctpo.training.listening import Listener
from ctpo.training.models import load_model
from ctpo.training.policy import EpisodePolicy, episode_settings, start_sandbox
from ctpo.training.recipe import Recipe
from ctpo.training.run import problems as problems_of
from ctpo.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


@dataclass(frozen=True)
class Sampled:
    """Answers with their prompts.

    Attributes:
        trajectories: Graded; those that could not be graded are left out.
        prompts: Index of the problem that each answers.
        unknown: How many could not be graded.
    """

    trajectories: list[Trajectory]
    prompts: list[int]
    unknown: int


@dataclass(frozen=True)
class Measurement:
    """All that was measured of a run.

    Attributes:
        old: Batch of the old policy.
        distances: One for each new policy.
        unknown: Answers that could not be graded and were left out.
        parameters: Number of parameters that gradients were taken by.
    """

    old: int
    distances: list[Distance]
    unknown: int
    parameters: int


def checkpoints(run: RunDirectory) -> dict[int, Path]:
    """Return the whole checkpoints of a run by batch.

    Args:
        run: A run directory.
    """
    updates = run.recipe.optimization.updates_per_batch
    found = {
        int(path.name.removeprefix("checkpoint-")) // updates: path
        for path in run.checkpoints.glob("checkpoint-*")
        if (path / "trainer_state.json").is_file()
    }
    return dict(sorted(found.items()))


def choose_old(available: Sequence[int], request: MeasureRequest) -> int:
    """Return the batch of the old policy.

    Args:
        available: Batches with a checkpoint.
        request: What is asked for.

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
        listener: Hears how it goes.

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
    with start_sandbox(recipe) as sandbox:
        lab = _Lab(request, recipe, problems, sandbox, listener)
        model, tokenizer = lab.load(found[old])
        data = lab.sample("old policy", model, tokenizer, request.answers, 0)
        apart = lab.sample("baseline", model, tokenizer, request.baseline_answers, 1)
        baseline = _mean_rewards(apart, len(problems))
        before = lab.logprobs("old log-probs", model, data.trajectories)
        distances, unknown = [], data.unknown + apart.unknown
        for number, after in enumerate(request.after):
            model, tokenizer = lab.load(found[old + after])
            fresh = lab.sample(
                f"policy {after} on", model, tokenizer, request.reference_answers, 2 + number
            )
            unknown += fresh.unknown
            distances.append(lab.distance(after, model, data, before, fresh, baseline))
    size = sum(p.numel() for p in _parameters(model))
    return Measurement(old, distances, unknown, size)


class _Lab:
    """Samples, grades and takes gradients."""

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

    def load(self, path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return a checkpoint, ready for gradients of single trajectories."""
        model, tokenizer = load_model(path, torch.float32)
        # The only attention whose backward pass takes several gradients at once.
        model.set_attn_implementation("eager")
        return model.eval(), tokenizer

    def sample(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        answers: int,
        stream: int,
    ) -> Sampled:
        """Return graded answers to every problem, each stream with random numbers of its own."""
        asked = [i for i in range(len(self._problems)) for _ in range(answers)]
        policy = EpisodePolicy(
            TransformersGenerator(model, tokenizer),
            tokenizer,
            self._sandbox,
            episode_settings(self._recipe),
            temperature=self._recipe.rollout.temperature,
            seed=self._request.seed * 1009 + stream,
        )
        self._listener.phase(f"{name}, answers", len(asked))
        size = self._request.batch_size
        kept, prompts = [], []
        for start in range(0, len(asked), size):
            part = asked[start : start + size]
            chats = [list(self._problems[i].messages) for i in part]
            for i, trajectory in zip(part, policy(chats, start // size), strict=True):
                reward = (
                    None
                    if trajectory.sandbox_failed
                    else SCORES[grade(trajectory.assistant_text, self._problems[i].answer).verdict]
                )
                if reward is not None and any(trajectory.mask):
                    kept.append(dataclasses.replace(trajectory, reward=reward))
                    prompts.append(i)
            self._listener.progress(start + len(part))
        return Sampled(kept, prompts, len(asked) - len(kept))

    def logprobs(
        self, name: str, model: PreTrainedModel, trajectories: Sequence[Trajectory]
    ) -> list[Float[Tensor, " T_i"]]:
        """Return log-probabilities of the response tokens, one trajectory at a time as later."""
        self._listener.phase(name, len(trajectories))
        result = []
        with torch.no_grad():
            for i, trajectory in enumerate(trajectories):
                result.append(_logprobs(model, trajectory, self._recipe.rollout.temperature).cpu())
                self._listener.progress(i + 1)
        return result

    def distance(
        self,
        after: int,
        model: PreTrainedModel,
        data: Sampled,
        before: Sequence[Tensor],
        fresh: Sampled,
        baseline: dict[int, float],
    ) -> Distance:
        """Return what is measured of one new policy."""
        now = self.logprobs(f"{after} on, log-probs", model, data.trajectories)
        masks = [torch.tensor(t.mask) for t in data.trajectories]
        log_ratios = [(a - b)[m] for a, b, m in zip(now, before, masks, strict=True)]
        advantages = _advantages(data, baseline)
        coefficients = all_coefficients(now, before, advantages, masks)
        sketch = Sketch(_parameters(model), seed=self._request.seed)
        pieces = coefficients.split([len(m) for m in masks], dim=1)
        sums, squares = self._gradients(f"{after} on, gradients", model, data, pieces, sketch)
        reference_pieces = [
            torch.where(torch.tensor(t.mask), a, 0.0)[None]
            for t, a in zip(fresh.trajectories, _advantages(fresh, baseline), strict=True)
        ]
        reference, _ = self._gradients(
            f"{after} on, reference", model, fresh, reference_pieces, sketch
        )
        found, norm, noise = qualities(sums, reference, seed=self._request.seed)
        policy_tokens = torch.cat(masks) & (
            advantages.repeat_interleave(torch.tensor([len(m) for m in masks])) != 0
        )
        clipped = {
            name.removesuffix(" (preset)"): float(
                (coefficients[e][policy_tokens] == 0).double().mean()
            )
            for e, name in enumerate(ESTIMATORS)
            if name.endswith("(preset)")
        }
        tokens = sum(map(len, log_ratios))
        return Distance(
            after,
            len(data.trajectories),
            len(fresh.trajectories),
            -float(torch.cat(log_ratios).double().sum()) / tokens,
            {
                name: weight_sample_size(log_ratios, name)
                for name in ("token", "cumulative", "full-sequence")
            },
            clipped,
            found,
            norm,
            noise,
            by_position(log_ratios, data.prompts, seed=self._request.seed),
            _by_length([len(x) for x in log_ratios], squares),
        )

    def _gradients(
        self,
        name: str,
        model: PreTrainedModel,
        data: Sampled,
        coefficients: Sequence[Float[Tensor, "E T_i"]],
        sketch: Sketch,
    ) -> tuple[PromptSums, Float[Tensor, "N E"]]:
        """Return the sums by prompt, and |g|² of each trajectory."""
        self._listener.phase(name, len(data.trajectories))
        parameters = _parameters(model)
        rows = len(coefficients[0])
        sums = PromptSums(len(self._problems), rows, sketch.dimensions)
        squares = torch.zeros(len(data.trajectories), rows, dtype=torch.float64)
        for i, (trajectory, part) in enumerate(zip(data.trajectories, coefficients, strict=True)):
            if not bool(part.any()):  # the advantage is 0: so is every gradient
                sums.add_nothing(data.prompts[i])
            else:
                logprobs = _logprobs(model, trajectory, self._recipe.rollout.temperature)
                part = part.to(logprobs.device)
                squares[i], sketches = trajectory_gradients(logprobs, parameters, part, sketch)
                sums.add(data.prompts[i], squares[i], sketches)
            self._listener.progress(i + 1)
        return sums, squares


def _parameters(model: PreTrainedModel) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def _logprobs(
    model: PreTrainedModel, trajectory: Trajectory, temperature: float
) -> Float[Tensor, " T"]:
    """Return log π(a_t|s_t) of every response token, in nats and float32."""
    ids = torch.tensor([trajectory.prompt_ids + trajectory.response_ids], device=model.device)
    length = len(trajectory.response_ids)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=length + 1).logits[0, :-1]
    logprobs = (logits.float() / temperature).log_softmax(-1)
    return logprobs.gather(-1, ids[0, -length:, None])[:, 0]


def _mean_rewards(sampled: Sampled, problems: int) -> dict[int, float]:
    """Return the mean reward of each problem that has one."""
    rewards: dict[int, list[float]] = {}
    for prompt, trajectory in zip(sampled.prompts, sampled.trajectories, strict=True):
        assert trajectory.reward is not None
        rewards.setdefault(prompt, []).append(trajectory.reward)
    return {i: sum(rewards[i]) / len(rewards[i]) for i in range(problems) if i in rewards}


def _advantages(sampled: Sampled, baseline: dict[int, float]) -> Float[Tensor, " N"]:
    # Without a graded answer the baseline is 0, which is as unbiased as any other.
    return torch.tensor(
        [
            t.reward - baseline.get(prompt, 0.0)
            for prompt, t in zip(sampled.prompts, sampled.trajectories, strict=True)
            if t.reward is not None
        ],
        dtype=torch.float64,
    )


def _by_length(
    lengths: Sequence[int], squares: Float[Tensor, "N E"]
) -> list[tuple[int, dict[str, float]]]:
    """Return for each third of the trajectories by length the mean |g|² over that of weight 1."""
    names = list(ESTIMATORS)
    order = torch.tensor(lengths).argsort(stable=True)
    result = []
    for part in order.chunk(3):
        means = squares[part].mean(0)
        scale = means[names.index(NO_RATIO)].clamp(min=1e-300)
        result.append(
            (
                int(max(lengths[i] for i in part.tolist())),
                {name: float(means[e] / scale) for e, name in enumerate(names) if e},
            )
        )
    return result
