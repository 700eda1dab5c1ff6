"""How far two graders can be trusted, how fast they are, and how far three readers of LaTeX can.

    python -m benchmarks.grading [--per-family 10] [--data FILE ...] [--pairs FILE ...]
        [--calls 10000] [--write docs/grading.md]

`ctpo.grading` and math-verify, used as its documentation shows, grade the same answers in one run:
generated ones, those made of gold answers in the notations one meets, the pairs of math-verify's
own tests, and those of `--pairs` files: JSON or JSON lines with `answer`, `gold`, `expected` and
perhaps `kind`, where an answer that begins with `TEXT:` is a whole response and no box's content.
The tables are Markdown; `--write` puts them between the markers of a document.
"""

import argparse
import json
import logging
import platform
import re
import signal
import statistics
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import sympy

from ctpo.grading import grade
from ctpo.grading.compare import Comparison
from ctpo.grading.equality import same_expression
from ctpo.grading.pool import shared_pool
from ctpo.grading.reading.tree import Node
from ctpo.grading.symbolic import Symbolic
from ctpo.tasks import read_problems
from tests.grading.corpus.cases import cases_of, corpus

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Pair:
    kind: str
    response: str
    gold: str
    expected: str


def of_cases(cases):
    return [
        Pair(case.family, case.response, case.gold, "right" if case.right else "wrong")
        for case in cases
    ]


def of_file(path):
    text = Path(path).read_text(encoding="utf-8-sig")
    rows = json.loads(text) if text.lstrip().startswith("[") else map(json.loads, text.splitlines())
    pairs = []
    for row in rows:
        whole = row["answer"].removeprefix("TEXT:")
        response = whole if whole != row["answer"] else rf"$\boxed{{{whole}}}$"
        pairs.append(Pair(row.get("kind", "all"), response, row["gold"], row["expected"]))
    return pairs


def by_ctpo(pair):
    return grade(pair.response, pair.gold).outcome


def by_math_verify(pair):
    """As its documentation shows; an exception inside it is a wrong answer, as in most trainers."""
    from math_verify import parse, verify

    gold = pair.gold if re.search(r"\$|\\boxed|\\\(|\\\[", pair.gold) else f"${pair.gold}$"
    answer = parse(pair.response, parsing_timeout=5)
    return "right" if verify(parse(gold, parsing_timeout=5), answer, timeout_seconds=5) else "wrong"


GRADERS = {"ctpo": by_ctpo, "math-verify": by_math_verify}
# Errors first: what is right and was called wrong, what is wrong and was called right.
HEAD = (
    "| kind | right / wrong pairs | ctpo: right called wrong | wrong called right "
    "| could not be told | math-verify: right called wrong | wrong called right |"
)


def measure(pairs, name, tables, times):
    """Grades all pairs with both graders and adds the table of errors by kind."""
    counts = defaultdict(Counter)
    for pair in pairs:
        counts[pair.kind][pair.expected] += 1
        for grader, by in GRADERS.items():
            start = time.perf_counter()
            outcome = by(pair)
            times[grader].append(time.perf_counter() - start)
            counts[pair.kind][grader, pair.expected, outcome] += 1
    total = sum(counts.values(), Counter())
    lines = [HEAD, "|---" * 7 + "|"]
    for kind, count in [*counts.items(), ("**all**", total)]:
        told = [count["ctpo", which, "could-not-tell"] for which in ("right", "wrong")]
        cells = [kind, f"{count['right']} / {count['wrong']}"]
        cells += [count["ctpo", "right", "wrong"], count["ctpo", "wrong", "right"]]
        cells += [f"{told[0]} / {told[1]}"]
        cells += [count["math-verify", "right", "wrong"], count["math-verify", "wrong", "right"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    tables[name] = "\n".join(lines)


def speed(times, tables):
    lines = ["| grader | answers | median | 90 % within | mean |", "|---|---|---|---|---|"]
    for grader, each in times.items():
        ninety = statistics.quantiles(each, n=10)[-1]
        figures = [f"{1000 * t:.3g} ms" for t in (statistics.median(each), ninety)]
        mean = f"{1000 * statistics.fmean(each):.3g} ms"
        lines.append(f"| {grader} | {len(each)} | {figures[0]} | {figures[1]} | {mean} |")
    tables["speed"] = "\n".join(lines)


def _ours(text):
    from ctpo.grading.reading.latex import read

    return read(text)[0]


def _latex2sympy(text):
    from latex2sympy2_extended import latex2sympy

    return latex2sympy(text)


def _lark(text):
    from sympy.parsing.latex import parse_latex

    return parse_latex(text, backend="lark")


def _same(left, right):
    if isinstance(left, Node):
        return Comparison(Symbolic()).same(left, right)
    if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
        return same_expression(left, right)
    return bool(left == right)


def readers(pairs, tables):
    """Each reader reads both sides, stripped as ours are, and their values are compared."""
    from ctpo.grading.box import boxes
    from ctpo.grading.reading.surface import strip

    def late(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    lines = [
        "| reader | read | right pairs shown equal | wrong pairs called equal | median |",
        "|---|---|---|---|---|",
    ]
    names = {"ours": _ours, "latex2sympy2_extended": _latex2sympy, "sympy's lark grammar": _lark}
    for name, reader in names.items():
        counts, each = Counter(), []
        for pair in pairs:
            try:
                found = boxes(pair.response)
            except ValueError:  # an open box has nothing to read
                continue
            sides = []
            for text in (found.answer if found else "", pair.gold):
                start = time.perf_counter()
                signal.alarm(2)
                try:
                    sides.append(reader(strip(text).text))
                    counts["read"] += 1
                except Exception:
                    pass
                signal.alarm(0)
                each.append(time.perf_counter() - start)
            counts[pair.expected] += 1
            signal.alarm(5)
            try:
                if len(sides) == 2 and _same(*sides):
                    counts[pair.expected, "equal"] += 1
            except Exception:
                pass
            signal.alarm(0)
        shown = f"{counts['right', 'equal']} of {counts['right']}"
        wrong = f"{counts['wrong', 'equal']} of {counts['wrong']}"
        read = f"{counts['read'] / len(each):.1%}"
        lines.append(
            f"| {name} | {read} | {shown} | {wrong} | {1000 * statistics.median(each):.3g} ms |"
        )
    tables["readers"] = "\n".join(lines)


def throughput(calls: int) -> None:
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


def write(path, tables):
    """Puts each table between its markers; one without markers there is only printed."""
    text = path.read_text()
    for name, table in tables.items():
        text = re.sub(
            rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end of table -->)",
            lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    path.write_text(text)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--per-family", type=int, default=10)
    options.add_argument("--data", nargs="*", default=[], help="gold answers to make cases of")
    options.add_argument("--pairs", nargs="*", default=[], help="pairs with their verdicts")
    options.add_argument("--calls", type=int, default=10_000)
    options.add_argument("--write", type=Path, help="a document with markers for the tables")
    arguments = options.parse_args()
    logging.disable(logging.WARNING)  # both say of some golds that they are malformed
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    styles = (HERE / "grading_styles.txt").read_text().splitlines()
    sets = {
        "generated": of_cases(corpus(arguments.per_family)),
        "notations": of_cases([case for gold in styles for case in cases_of(gold, "notation")]),
        "math-verify": of_file(HERE / "grading_math_verify.jsonl"),
    }
    for file in arguments.pairs:
        sets["pairs"] = sets.get("pairs", []) + of_file(file)
    for file in arguments.data:
        made = [c for problem in read_problems(file) for c in cases_of(problem.answer, file)]
        sets["data"] = sets.get("data", []) + of_cases(made)
    by_ctpo(Pair("", r"\boxed{x+x}", "2x", "right"))  # a worker's start is no part of a comparison
    tables, times = {}, {grader: [] for grader in GRADERS}
    for name, pairs in sets.items():
        measure(pairs, name, tables, times)
        print(f"### {name}\n\n{tables[name]}\n", flush=True)
    speed(times, tables)
    readers(sets["notations"][::8] + sets["math-verify"] + sets.get("pairs", []), tables)
    for name in ("speed", "readers"):
        print(f"### {name}\n\n{tables[name]}\n")
    if arguments.write:
        write(arguments.write, tables)
    throughput(arguments.calls)


if __name__ == "__main__":
    main()
