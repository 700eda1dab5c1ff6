"""The conversations that the parrot of these tests knows, and the questions that lead to them."""

from ctpo.evaluation.answers import Question
from ctpo.tasks import Problem
from ctpo.tir import EpisodeSettings
from ctpo.tir.protocols import FENCE

SETTINGS = EpisodeSettings(max_response_tokens=120, max_calls=2)

# question, program, its output, the answer given, the right answer
LESSONS = (
    ("Find the gcd.", "print(6*7)", "42", "42", "42"),
    ("Find the lcm.", "print(9-4)", "5", "5", "6"),
    ("Find the sum.", "1/0", "ZeroDivisionError: division by zero", "7", "7"),
)


def problems():
    return [
        Problem(
            id=f"lesson-{number}",
            messages=(
                {"role": "system", "content": FENCE.instructions},
                {"role": "user", "content": question},
            ),
            answer=gold,
            source="lessons",
            split="test",
        )
        for number, (question, _, _, _, gold) in enumerate(LESSONS)
    ]


def questions(samples=1, seed=0):
    return [
        Question.of("lessons", problem, sample, seed)
        for problem in problems()
        for sample in range(samples)
    ]
