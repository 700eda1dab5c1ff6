"""Put problems to a policy, grade what it answers, average."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ctpo.evaluation.estimate import Estimate
from ctpo.evaluation.statistics import avg_at_k
from ctpo.grading import SCORES, Outcome, grade
from ctpo.tasks.problem import Message, Problem


class Response(Protocol):
    """What is asked of an answer; `tir.Trajectory` has it."""

    @property
    def assistant_text(self) -> str:
        """The policy's own words, without what tools printed."""

    @property
    def sandbox_failed(self) -> bool:
        """Whether a program got no answer through no fault of its own."""


# (chats, index of the batch) -> one answer per chat, in order. The index is for seeding.
Policy = Callable[[list[list[Message]], int], Sequence[Response]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Record:
    """One graded answer.

    Attributes:
        problem_id: The problem answered.
        sample: Which of the k answers to it, from 0.
        outcome: The grade.
        reason: Its grounds.
        extracted: What stood in the box; None if there was none.
        answer: The right answer.
        text: The policy's own words.
    """

    problem_id: str
    sample: int
    outcome: Outcome
    reason: str
    extracted: str | None
    answer: str
    text: str


@dataclass(frozen=True)
class Evaluation:
    """How well a policy did.

    Attributes:
        samples_per_problem: The k of avg@k.
        overall: avg@k over all problems.
        by_source: The same for each source, in order of appearance.
        records: Every answer; empty when read from a dictionary.
    """

    samples_per_problem: int
    overall: Estimate
    by_source: dict[str, Estimate]
    records: tuple[Record, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The numbers, ready for JSON. The records are left out."""
        return {
            "samples_per_problem": self.samples_per_problem,
            "overall": self.overall.to_dict(),
            "by_source": {name: part.to_dict() for name, part in self.by_source.items()},
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Evaluation:
        """Reads what `to_dict` wrote.

        Raises:
            KeyError: If a part is missing.
        """
        return cls(
            samples_per_problem=fields["samples_per_problem"],
            overall=Estimate.from_dict(fields["overall"]),
            by_source={n: Estimate.from_dict(part) for n, part in fields["by_source"].items()},
        )


def evaluate(
    problems: Sequence[Problem],
    policy: Policy,
    *,
    samples_per_problem: int,
    batch_size: int,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Samples k answers to each problem, grades them and averages.

    An answer whose grade is unknown, or whose sandbox failed, has no score: it is counted but
    enters no mean.

    Args:
        problems: The problems, each put to the policy `samples_per_problem` times.
        policy: Takes chats and the batch's index, returns an answer to each.
        samples_per_problem: The k of avg@k.
        batch_size: Most chats per call of the policy.
        on_progress: Called with the number of answers so far and in all, after every batch.

    Returns:
        The evaluation.

    Raises:
        ValueError: If there are no problems, a number is below 1, or the policy does not return one
            answer per chat.
    """
    for name, value in (("samples_per_problem", samples_per_problem), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more")
    if not problems:
        raise ValueError("there are no problems to evaluate on")
    asked = [(index, k) for index in range(len(problems)) for k in range(samples_per_problem)]
    records: list[Record] = []
    scores: list[list[float | None]] = [[] for _ in problems]
    for batch_index, start in enumerate(range(0, len(asked), batch_size)):
        batch = asked[start : start + batch_size]
        # Copies, so that a policy that edits its chats does not edit the problems.
        chats = [[dict(message) for message in problems[index].messages] for index, _ in batch]
        responses = policy(chats, batch_index)
        if len(responses) != len(batch):
            raise ValueError(
                f"the policy gave {len(responses)} answers to {len(batch)} chats in batch"
                f" {batch_index}; one is needed each"
            )
        for (index, sample), response in zip(batch, responses, strict=True):
            record = _graded(problems[index], sample, response)
            records.append(record)
            scores[index].append(SCORES[record.outcome])
        if on_progress is not None:
            on_progress(len(records), len(asked))

    by_source: dict[str, list[list[float | None]]] = {}
    for problem, row in zip(problems, scores, strict=True):
        by_source.setdefault(problem.source, []).append(row)
    return Evaluation(
        samples_per_problem=samples_per_problem,
        overall=avg_at_k(scores),
        by_source={name: avg_at_k(rows) for name, rows in by_source.items()},
        records=tuple(records),
    )


def _graded(problem: Problem, sample: int, response: Response) -> Record:
    text = response.assistant_text
    grading = grade(text, problem.answer)
    failed = response.sandbox_failed
    return Record(
        problem_id=problem.id,
        sample=sample,
        outcome="could-not-tell" if failed else grading.outcome,
        reason="the sandbox failed" if failed else grading.reason,
        extracted=grading.extracted,
        answer=problem.answer,
        text=text,
    )
