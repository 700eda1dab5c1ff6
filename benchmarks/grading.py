"""How far three graders can be trusted, and how fast ours is.

    python benchmarks/grading.py [--per-family 40] [--data FILE ...] [--calls 10000]

Generated cases, those made of gold answers written by hand in the notations one meets, and those
made of the gold answers of `--data` files are graded by `ctpo.grading`, by math-verify alone and by
the usual comparison of normalized strings. The tables are Markdown.
"""

import argparse
import platform
import re
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ctpo.grading import grade, last_box
from ctpo.grading.corpus import Case, cases_of, corpus
from ctpo.grading.pool import shared_pool
from ctpo.tasks import read_problems


def by_ctpo(case):
    return grade(case.response, case.gold).outcome


def by_math_verify(case):
    """As its documentation shows; an exception inside it is a wrong answer, as in most trainers."""
    from math_verify import parse, verify

    gold = parse(f"${case.gold}$", parsing_timeout=5)
    answer = parse(case.response, parsing_timeout=5)
    return "right" if verify(gold, answer, timeout_seconds=5) else "wrong"


def by_strings(case):
    return "right" if _normal(last_box(case.response) or "") == _normal(case.gold) else "wrong"


def _normal(text):
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\(?:left|right|displaystyle|[,!;:])|\\\$|\$|\\\(|\\\)|\s", "", text)
    text = re.sub(r"\^\{?\\circ\}?|\\text\{[^{}]*\}$", "", text).removesuffix(".")
    text = text.split("=")[-1] if len(text.split("=")[0]) <= 2 else text
    return re.sub(r"^(-?)0+(?=\d)", r"\1", text.removesuffix(".0"))


GRADERS = {"ctpo": by_ctpo, "math-verify alone": by_math_verify, "strings": by_strings}


def measure(cases: list[Case], title: str) -> None:
    print(f"\n### {title}\n")
    heads = " | ".join(f"{name}: kept | wrong called right" for name in GRADERS)
    print(f"| gold answers | cases | {heads} | ctpo: could not tell |")
    print("|---" * (3 + 2 * len(GRADERS)) + "|")
    counts = defaultdict(Counter)
    mistakes = []
    for case in cases:
        counts[case.family]["cases", case.right] += 1
        for name, grader in GRADERS.items():
            outcome = grader(case)
            counts[case.family][name, case.right, outcome] += 1
            if name == "ctpo" and outcome != ("right" if case.right else "wrong"):
                mistakes.append((outcome, case))
    total = sum(counts.values(), Counter())
    for family, count in [*counts.items(), ("**all**", total)]:
        right, wrong = count["cases", True], count["cases", False]
        cells = [family, str(right + wrong)]
        for name in GRADERS:
            cells += [
                f"{count[name, True, 'right'] / right:.1%}",
                f"{count[name, False, 'right']} of {wrong}",
            ]
        unknown = sum(count["ctpo", value, "could-not-tell"] for value in (True, False))
        print("| " + " | ".join([*cells, f"{unknown / (right + wrong):.2%}"]) + " |")
    itself = [one for one in mistakes if one[1].change == "itself"]
    print(
        f"\nctpo: {len(itself)} gold answers not right against themselves; "
        "cases not decided as they were made:"
    )
    for (outcome, family, change), number in Counter(
        (outcome, case.family, case.change) for outcome, case in mistakes
    ).most_common():
        example = next(
            c for o, c in mistakes if (o, c.family, c.change) == (outcome, family, change)
        )
        print(
            f"- {outcome}, {number} × {family}, {change}: "
            f"`{example.answer}` against `{example.gold}`"
        )


def throughput(calls: int) -> None:
    print("\n### Throughput\n")
    text = "Let us see. " * 40 + r"so the answer is \boxed{12345}."
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(50_000):
            grade(text, "54321")
        rates.append(50_000 / (time.perf_counter() - start))
    print(
        f"integers, one core: {min(rates):,.0f} to {max(rates):,.0f} answers a second over 5 rounds"
    )
    pool = shared_pool()
    formulas = [(rf"\frac{{{n}\pi}}{{{n % 7 + 2}}}", f"{n}*pi/{n % 7 + 2}") for n in range(calls)]
    memory, peaks = [], []

    def compare(pair):
        return pool.compare(*pair, 5.0).equal

    with ThreadPoolExecutor(8) as threads:
        for part in range(10):
            chunk = formulas[part * calls // 10 : (part + 1) * calls // 10]
            start = time.perf_counter()
            equal = sum(threads.map(compare, chunk))
            peaks.append(len(chunk) / (time.perf_counter() - start))
            memory.append(
                sum(worker._bytes for worker in pool._idle) / 2**20 / max(1, len(pool._idle))
            )
            assert equal == len(chunk), (equal, len(chunk))
    print(
        f"formulas, {len(pool._idle)} worker(s): {min(peaks):,.0f} to {max(peaks):,.0f} a second "
        f"over {calls:,} calls; MiB a worker after each tenth: "
        + ", ".join(f"{m:.0f}" for m in memory)
    )


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--per-family", type=int, default=40)
    options.add_argument("--data", nargs="*", default=[])
    options.add_argument("--calls", type=int, default=10_000)
    arguments = options.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}")
    measure(corpus(arguments.per_family), "Generated gold answers")
    styles = Path(__file__).with_name("grading_styles.txt").read_text().splitlines()
    written = [case for gold in styles for case in cases_of(gold, "notation")]
    measure(written, f"{len(styles)} gold answers in the notations of the usual benchmarks")
    real = [
        case
        for file in arguments.data
        for problem in read_problems(file)
        for case in cases_of(problem.answer, problem.source)
    ]
    if real:
        measure(real, "Gold answers of files")
    throughput(arguments.calls)


if __name__ == "__main__":
    main()
