"""One graded answer, as it is kept on disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ctpo.evaluation.rewards import Reward
from ctpo.grading import SCORES, Outcome, Verdict, grade
from ctpo.tasks import Problem
from ctpo.tir import Trajectory
from ctpo.tir.server.episodes import Transcript

Key = tuple[str, str, int]

# The fields that are the grade.
GRADE = ("outcome", "path", "reason", "extracted")
ALL_REASONING = "all its text came as reasoning, and none as the answer"


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
    problems: Iterable[tuple[str, Problem]], samples: int, run_seed: int
) -> list[Question]:
    """Return every asking of an evaluation, in the order of the problems.

    Raises:
        ValueError: There are no problems, two of a benchmark have one name, or `samples` is below
            1.
    """
    if samples < 1:
        raise ValueError(f"samples per problem is {samples}; it must be 1 or more")
    asked = list(problems)
    if not asked:
        raise ValueError("there are no problems to evaluate on")
    names = Counter((benchmark, problem.id) for benchmark, problem in asked)
    ((benchmark, name), count), *_ = names.most_common(1)
    if count > 1:
        raise ValueError(f"{benchmark}: {count} problems have the name {name}; each needs one")
    return [
        Question.of(benchmark, problem, sample, run_seed)
        for benchmark, problem in asked
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
        path: What decided, see `grading.Verdict`; `reward` for a function of the user's; `sandbox`
            or `server` where that failed, so no grade is fair.
        reason: The grounds.
        extracted: What stood in the box.
        finish_reason: `answered`, `length`, `calls`, `context`, `filter` or `failed`; see
            `tir.Trajectory`.
        text: The model's own words.
        turns: Who said what, in order.
        tool_calls: Programs with their status and what the model was shown.
        tokens: Tokens the model generated.
        token_ids: The response's tokens, the tool's included; None where a server keeps them.
        seconds: Time it took.
        earlier: The grades it had before it was graded again, by the names of `GRADE`, oldest
            first.
        also: Other answers that are right, too.
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
    earlier: list[dict[str, str | None]] = field(default_factory=list)
    also: list[str] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """What tells it from every other."""
        return (self.benchmark, self.problem_id, self.sample)

    @property
    def failed(self) -> bool:
        """Whether the server did not give it, so that it is to be asked for again."""
        return self.finish_reason == "failed"

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


def graded(question: Question, reply: Reply, reward: Reward | None = None) -> Answer:
    """Grade a reply.

    An answer that was cut off has no box and is wrong; one that never began, because the prompt
    does not fit the model, one that the server failed to give or filtered, and one whose program
    the sandbox failed to run are `could-not-tell`.

    Args:
        question: What was asked.
        reply: What came.
        reward: Says how good it is in place of `grading.grade`: 1 or more is right, less is wrong.
    """
    response, problem = reply.response, question.problem
    if reward is None:
        verdict, path = grade(response.assistant_text, problem.golds), ""
    else:
        verdict, path = _verdict(reward(response, problem)), "reward"
    if response.sandbox_failed:
        verdict = Verdict("could-not-tell", verdict.extracted, "none", "the sandbox failed")
        path = "sandbox"
    elif response.finish_reason == "context" and not response.assistant_text:
        verdict = Verdict("could-not-tell", None, "none", "the prompt does not fit the context")
    elif response.finish_reason in ("failed", "filter"):
        why = isinstance(response, Transcript) and response.failure
        why = why or "a content filter of the server cut it off"
        verdict, path = Verdict("could-not-tell", verdict.extracted, "none", why), "server"
    reason = verdict.reason
    if isinstance(response, Trajectory):
        turns = [{"role": str(turn.role), "text": turn.text} for turn in response.turns]
        tokens, ids = sum(response.mask), list(response.response_ids)
    else:
        turns = [{"role": role, "text": text} for role, text in response.turns]
        tokens, ids = response.tokens, None
        thought = any(turn["role"] == "reasoning" for turn in turns)
        if path != "server" and thought and not response.assistant_text.strip():
            reason = ALL_REASONING
    return Answer(
        benchmark=question.benchmark,
        problem_id=problem.id,
        sample=question.sample,
        seed=reply.seed,
        gold=problem.answer,
        outcome=verdict.outcome,
        path=path or verdict.path,
        reason=reason,
        extracted=verdict.extracted,
        finish_reason=response.finish_reason,
        text=response.assistant_text,
        turns=turns,
        tool_calls=[asdict(result) for result in response.tool_results],
        tokens=tokens,
        token_ids=ids,
        seconds=round(reply.seconds, 3),
        also=list(problem.also),
    )


def _verdict(reward: float | None) -> Verdict:
    if reward is None:
        return Verdict("could-not-tell", None, "none", "the reward function cannot tell")
    outcome: Outcome = "right" if reward >= 1 else "wrong"
    return Verdict(outcome, None, "none", f"the reward is {reward:g}")


def graded_again(answer: Answer) -> Answer:
    """Return an answer with the grade that its text gets now, and with the old one beside it.

    What no grade was fair of stays: an answer that the sandbox or the server failed, and one that
    never began. So does what a function of the user's has graded.
    """
    if answer.path in ("sandbox", "server", "reward") or not answer.text.strip():
        return answer
    verdict = grade(answer.text, [answer.gold, *answer.also])
    if (verdict.outcome, verdict.extracted) == (answer.outcome, answer.extracted):
        return answer  # other words for the same grade are no change
    now = {name: getattr(verdict, name) for name in GRADE}
    before = {name: getattr(answer, name) for name in GRADE}
    return replace(answer, **now, earlier=[*answer.earlier, before])


def by_problem(answers: Iterable[Answer]) -> dict[tuple[str, str], list[Answer]]:
    """Return the answers by problem's name and benchmark, sorted: the order they came in is lost.

    A server's answers come in another order each time, and figures with a seed must not depend on
    it.
    """
    rows: dict[tuple[str, str], list[Answer]] = {}
    for answer in sorted(answers, key=lambda one: (one.problem_id, one.benchmark, one.sample)):
        rows.setdefault((answer.problem_id, answer.benchmark), []).append(answer)
    return rows
