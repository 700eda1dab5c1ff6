"""avg@k of a model on problems, as training takes it along the way: nothing is kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Self

from ctpo.evaluation.answers import Question, Reply, graded, questions
from ctpo.evaluation.asking import BatchModel, Policy, Progress
from ctpo.evaluation.estimate import Estimate
from ctpo.evaluation.rewards import Reward
from ctpo.evaluation.statistics import avg_at_k
from ctpo.tasks import Problem

Score = tuple[str, str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """How well a policy did.

    Attributes:
        samples_per_problem: The k of avg@k.
        overall: avg@k over all problems.
        by_source: The same for each source.
        by_problem: The mean score of each problem that has one, by name: what two models are paired
            by.
    """

    samples_per_problem: int
    overall: Estimate
    by_source: dict[str, Estimate]
    by_problem: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Iterable[Score]) -> Self:
        """Average scores.

        Args:
            scores: Of each answer the problem's source, the problem's name and the score, None
                where it could not be told. Their order changes nothing.

        Raises:
            ValueError: There are none.
        """
        rows: dict[tuple[str, str], list[float | None]] = {}
        for source, problem, score in scores:
            rows.setdefault((problem, source), []).append(score)
        if not rows:
            raise ValueError("there are no answers to average over")
        by_source: dict[str, list[list[float | None]]] = {}
        names = sorted(rows)
        for problem, source in names:
            by_source.setdefault(source, []).append(rows[problem, source])
        return cls(
            samples_per_problem=max(map(len, rows.values())),
            overall=avg_at_k([rows[name] for name in names]),
            by_source={name: avg_at_k(table) for name, table in sorted(by_source.items())},
            by_problem={
                problem: fmean(known)
                for problem, source in names
                if (known := [x for x in rows[problem, source] if x is not None])
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {
            "samples_per_problem": self.samples_per_problem,
            "overall": self.overall.to_dict(),
            "by_source": {name: part.to_dict() for name, part in self.by_source.items()},
            "by_problem": self.by_problem,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Reads what `to_dict` wrote.

        Raises:
            KeyError: If a part is missing.
        """
        return cls(
            samples_per_problem=fields["samples_per_problem"],
            overall=Estimate.from_dict(fields["overall"]),
            by_source={n: Estimate.from_dict(part) for n, part in fields["by_source"].items()},
            by_problem=fields.get("by_problem", {}),  # of an earlier version there are none
        )


def evaluate(
    problems: Sequence[Problem],
    policy: Policy,
    *,
    samples_per_problem: int,
    batch_size: int,
    seed: int = 0,
    on_progress: Progress | None = None,
    reward: Reward | None = None,
) -> Evaluation:
    """Samples k answers to each problem, grades them and averages: `ctpo eval` in small.

    Args:
        problems: The problems, each put to the policy `samples_per_problem` times.
        policy: Answers chats.
        samples_per_problem: The k of avg@k.
        batch_size: Most chats per call of the policy.
        seed: Of the sampling.
        on_progress: Called with the number of answers so far and in all, after every batch.
        reward: Whose values are averaged, in place of our grades.

    Raises:
        ValueError: If there are no problems or two of a name, a number is below 1, or the policy
            does not return one answer per chat.
    """
    asked = questions([(one.source, one) for one in problems], samples_per_problem, seed)
    scores: list[Score] = []

    def keep(replies: Sequence[tuple[Question, Reply]]) -> None:
        for q, reply in replies:
            own = reward and reward(reply.response, q.problem)
            score = own if reward else graded(q, reply).score
            scores.append((q.benchmark, q.problem.id, score))
        if on_progress is not None:
            on_progress(len(scores), len(asked))

    BatchModel(policy, seed, batch_size).ask(asked, lambda _: True, keep)
    return Evaluation.of(scores)
