"""The benchmarks, as data: where they are, what their columns mean, what must hold of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GoldKind = Literal["integer", "number", "latex", "choice"]


@dataclass(frozen=True)
class Benchmark:
    """A published set of problems.

    Attributes:
        name: What `ctpo eval --benchmark` calls it.
        title: What people call it.
        repository: The data set on the Hub.
        count: How many problems it has.
        gold: What its gold answers are: whole numbers, numbers, LaTeX, or the letter of a choice.
        revision: The commit to load, as public evaluation code pins it. Whichever was loaded is
            recorded in the results.
        golds: What `benchmark_checks.digest` makes of its gold answers; None where we have not had
            them.
        config: The data set's configuration, if it has several.
        split: The split to read.
        question: Column of the question.
        answer: Column of the answer.
        id: Column of the identifier; None for the row's number.
        wrong_choices: Columns of the wrong answers of a multiple-choice question.
        gated: Whether its terms must be accepted on the Hub first.
    """

    name: str
    title: str
    repository: str
    count: int
    gold: GoldKind
    revision: str
    golds: str | None = None
    config: str | None = None
    split: str = "train"
    question: str = "problem"
    answer: str = "answer"
    id: str | None = None
    wrong_choices: tuple[str, ...] = ()
    gated: bool = False


def _math_arena(
    name: str,
    title: str,
    repository: str,
    count: int,
    gold: GoldKind,
    revision: str,
    golds: str | None = None,
) -> Benchmark:
    place = f"MathArena/{repository}"
    return Benchmark(name, title, place, count, gold, revision, golds, id="problem_idx")


_ALL = (
    Benchmark(
        "aime24",
        "AIME 2024",
        "HuggingFaceH4/aime_2024",
        30,
        "integer",
        "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        "26b2e319e14bdec5",
        id="id",
    ),
    _math_arena(
        "aime25",
        "AIME 2025",
        "aime_2025",
        30,
        "integer",
        "c94da77eb22bbd6439e62a323bec18493a421302",
        "a0239316151158f3",
    ),
    _math_arena(
        "aime26",
        "AIME 2026",
        "aime_2026",
        30,
        "integer",
        "d2de22f3c656b4f56cf8981212186377d1e23bc3",
    ),
    _math_arena(
        "hmmt25",
        "HMMT February 2025",
        "hmmt_feb_2025",
        30,
        "latex",
        "6fdc4277120810ff75aa22d2d5489b91f7a262a1",
    ),
    _math_arena(
        "hmmt25nov",
        "HMMT November 2025",
        "hmmt_nov_2025",
        30,
        "latex",
        "118dbfb45c4c9467c672268ed55166642897aa46",
    ),
    _math_arena(
        "brumo25",
        "BRUMO 2025",
        "brumo_2025",
        30,
        "latex",
        "6de9bc0987f5710c6376ee980e1483dbeb55cfda",
        "b9bc51269ff16a78",
    ),
    _math_arena(
        "cmimc25",
        "CMIMC 2025",
        "cmimc_2025",
        40,
        "latex",
        "8f27517ce4ad1d05e023c0e7eca4344754ba2a04",
    ),
    _math_arena(
        "smt25",
        "SMT 2025",
        "smt_2025",
        53,
        "latex",
        "d8e99d83f1583842f46d4953cd960eea5d887e45",
    ),
    Benchmark(
        "math500",
        "MATH-500",
        "HuggingFaceH4/MATH-500",
        500,
        "latex",
        "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        split="test",
        id="unique_id",
    ),
    Benchmark(
        "amc23",
        "AMC 2023",
        "math-ai/amc23",
        40,
        "number",
        "80815d37005feb82cd7f8fbc6901d5d3eff43057",
        "395f5c1282d3240d",
        split="test",
        question="question",
        id="id",
    ),
    Benchmark(
        "gsm8k",
        "GSM8K",
        "openai/gsm8k",
        1319,
        "integer",
        "740312add88f781978c0658806c59bc2815b9866",
        "a7866b369c33070b",
        config="main",
        split="test",
        question="question",
    ),
    Benchmark(
        "minerva",
        "Minerva",
        "math-ai/minervamath",
        272,
        "latex",
        "ee46ddc498933b1977577953250ca5c66be64f96",
        split="test",
        question="question",
    ),
    Benchmark(
        "olympiadbench",
        "OlympiadBench, English text-only open-ended mathematics",
        "Hothan/OlympiadBench",
        674,
        "latex",
        "91184b52131e7fc9455fef848035173aea8cc01a",
        config="OE_TO_maths_en_COMP",
        question="question",
        answer="final_answer",
        id="id",
    ),
    Benchmark(
        "gpqa",
        "GPQA Diamond",
        "Idavidrein/gpqa",
        198,
        "choice",
        "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        config="gpqa_diamond",
        question="Question",
        answer="Correct Answer",
        wrong_choices=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        gated=True,
    ),
)

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
