"""One graded answer, as it is kept on disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ctpo.grading import SCORES, Outcome, Verdict, grade
from ctpo.tasks import Problem
from ctpo.tir import Trajectory
from ctpo.tir.server_episodes import Transcript

Key = tuple[str, str, int]


@dataclass(frozen=True)
class Question:
    """One asking of a problem.

    Attributes:
        benchmark: The benchmark it is from.
        problem: The problem.
        sample: Which of the k answers to it this is, from 0.
        seed: Of this asking alone, made of the run's seed and the three above.
    """

    benchmark: str
    problem: Problem
    sample: int
    seed: int

    @property
    def key(self) -> Key:
        """What tells it from every other."""
        return (self.benchmark, self.problem.id, self.sample)

    @classmethod
    def of(cls, benchmark: str, problem: Problem, sample: int, run_seed: int) -> Question:
        """Make one with its seed, which depends on nothing but these four."""
        text = f"{run_seed}/{benchmark}/{problem.id}/{sample}"
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
        return cls(benchmark, problem, sample, number >> 1)


def questions(
    problems: Mapping[str, Sequence[Problem]], samples: int, run_seed: int
) -> list[Question]:
    """Return every asking of an evaluation, in order.

    Args:
        problems: By benchmark.
        samples: Askings of each problem.
        run_seed: The evaluation's seed.

    Raises:
        ValueError: There are no problems, two of a benchmark have one name, or `samples` is below
            1.
    """
    if samples < 1:
        raise ValueError(f"samples per problem is {samples}; it must be 1 or more")
    if not any(problems.values()):
        raise ValueError("there are no problems to evaluate on")
    for benchmark, group in problems.items():
        name, count = Counter(problem.id for problem in group).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{benchmark}: {count} problems have the name {name}; each needs one")
    return [
        Question.of(benchmark, problem, sample, run_seed)
        for benchmark, group in problems.items()
        for problem in group
        for sample in range(samples)
    ]


@dataclass(frozen=True)
class Reply:
    """What a model gave to a question.

    Attributes:
        response: The episode.
        seconds: Time it took; of a batch each answer's share.
        seed: The seed that was used.
    """

    response: Trajectory | Transcript
    seconds: float
    seed: int


@dataclass(frozen=True)
class Answer:
    """A graded answer: one line of `answers.jsonl`.

    Attributes:
        benchmark: The benchmark.
        problem_id: The problem.
        sample: Which of the k answers to it, from 0.
        seed: The seed used.
        gold: The right answer.
        outcome: `right`, `wrong` or `could-not-tell`.
        path: What decided, see `grading.Verdict`; `sandbox` where it failed, so no grade is fair.
        reason: The grounds.
        extracted: What stood in the box.
        finish_reason: `answered`, `length`, `calls` or `context`.
        text: The model's own words.
        turns: Who said what, in order.
        tool_calls: Programs with their status and what the model was shown.
        tokens: Tokens the model generated.
        token_ids: The response's tokens, the tool's included; None where a server keeps them.
        seconds: Time it took.
    """

    benchmark: str
    problem_id: str
    sample: int
    seed: int
    gold: str
    outcome: Outcome
    path: str
    reason: str
    extracted: str | None
    finish_reason: str
    text: str
    turns: list[dict[str, str]]
    tool_calls: list[dict[str, str | None]]
    tokens: int
    token_ids: list[int] | None
    seconds: float

    @property
    def key(self) -> Key:
        """What tells it from every other."""
        return (self.benchmark, self.problem_id, self.sample)

    @property
    def score(self) -> float | None:
        """1, 0, or None where it could not be told."""
        return SCORES[self.outcome]

    def slim(self) -> Answer:
        """Returns it without its texts and tokens, of which an evaluation may have gigabytes.

        The turns are replaced by one with their digest, so that equal ones stay equal; of the tool
        calls the status is kept.
        """
        digest = hashlib.sha256(repr(self.turns).encode()).hexdigest()
        return replace(
            self,
            text="",
            turns=[{"role": "digest", "text": digest}],
            tool_calls=[{"status": call["status"]} for call in self.tool_calls],
            token_ids=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Answer:
        """Reads what `to_dict` wrote.

        Raises:
            TypeError: A field is missing or unknown.
        """
        return cls(**fields)


def graded(question: Question, reply: Reply) -> Answer:
    """Grade a reply.

    An answer that was cut off has no box and is wrong; one that never began, because the prompt
    does not fit the model, and one whose program the sandbox failed to run are `could-not-tell`.

    Args:
        question: What was asked.
        reply: What came.
    """
    response, problem = reply.response, question.problem
    verdict, path = grade(response.assistant_text, problem.answer), ""
    if response.sandbox_failed:
        verdict = Verdict("could-not-tell", verdict.extracted, "none", "the sandbox failed")
        path = "sandbox"
    elif response.finish_reason == "context" and not response.assistant_text:
        verdict = Verdict("could-not-tell", None, "none", "the prompt does not fit the context")
    if isinstance(response, Trajectory):
        turns = [{"role": str(turn.role), "text": turn.text} for turn in response.turns]
        tokens, ids = sum(response.mask), list(response.response_ids)
    else:
        turns = [{"role": role, "text": text} for role, text in response.turns]
        tokens, ids = response.tokens, None
    return Answer(
        benchmark=question.benchmark,
        problem_id=problem.id,
        sample=question.sample,
        seed=reply.seed,
        gold=problem.answer,
        outcome=verdict.outcome,
        path=path or verdict.path,
        reason=verdict.reason,
        extracted=verdict.extracted,
        finish_reason=response.finish_reason,
        text=response.assistant_text,
        turns=turns,
        tool_calls=[asdict(result) for result in response.tool_results],
        tokens=tokens,
        token_ids=ids,
        seconds=round(reply.seconds, 3),
    )


def by_problem(answers: Iterable[Answer]) -> dict[tuple[str, str], list[Answer]]:
    """Return the answers by problem's name and benchmark, sorted: the order they came in is lost.

    A server's answers come in another order each time, and figures with a seed must not depend on
    it.
    """
    rows: dict[tuple[str, str], list[Answer]] = {}
    for answer in sorted(answers, key=lambda one: (one.problem_id, one.benchmark, one.sample)):
        rows.setdefault((answer.problem_id, answer.benchmark), []).append(answer)
    return rows
