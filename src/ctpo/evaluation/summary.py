"""The figures of an evaluation, what must be read beside them, and their table."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ctpo.evaluation.answers import ALL_REASONING, Answer, by_problem
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.evaluation.estimate import Estimate
from ctpo.evaluation.majority import Vote
from ctpo.evaluation.statistics import avg_at_k, maj_at_k, pass_at_k
from ctpo.grading import canonical


@dataclass(frozen=True)
class Beside:
    """What a figure cannot be read without.

    Attributes:
        truncated: Share of answers cut off by the limit of tokens.
        context_full: Share of answers that the model's context had no room for, or not for all.
        filtered: Share of answers cut off by a server's content filter; they enter no figure.
        failed: Share of answers that the server did not give; they enter no figure.
        all_reasoning: Share of answers whose text the server took for reasoning, all of it.
        no_answer: Share without a box, of the answers that were given.
        could_not_tell: Share of answers that could not be graded; they enter no figure.
        calls_per_answer: Programs run, per answer.
        failed_programs: Share of the programs that ended in an error of their own; None without
            programs.
        sandbox_failures: Programs that the sandbox failed to run.
        mean_tokens: Generated tokens per answer.
        tokens_per_second: Generated tokens over the seconds the answers took; of a server, per
            stream.
        distinct: How much the samples of a problem differ, averaged: 1 if all do, 0 if they are one
            and the same; None if no problem has two.
    """

    truncated: float
    context_full: float
    filtered: float
    failed: float
    all_reasoning: float
    no_answer: float
    could_not_tell: float
    calls_per_answer: float
    failed_programs: float | None
    sandbox_failures: int
    mean_tokens: float
    tokens_per_second: float | None
    distinct: float | None


def default_ks(samples: int) -> list[int]:
    """Powers of two up to the number of samples, and that number."""
    return sorted({2**i for i in range(samples.bit_length()) if 2**i <= samples} | {samples})


def check_ks(ks: Sequence[int], samples: int) -> None:
    """Refuse a k that the samples do not allow, before any work is done.

    Raises:
        ValueError: It is below 1 or above the number of samples.
    """
    for k in ks:
        if not 1 <= k <= samples:
            raise ValueError(
                f"k is {k}; with --samples {samples} it must be from 1 to {samples}: pass@k and "
                "maj@k choose k of a problem's samples"
            )


def figures(answers: Sequence[Answer], ks: Sequence[int], seed: int = 0) -> dict[str, Estimate]:
    """Compute avg@n, pass@k and maj@k.

    Args:
        answers: All answers of one benchmark, the same number to each problem.
        ks: The k of pass@k and maj@k.
        seed: Of the bootstraps.
    """
    rows = list(by_problem(answers).values())
    samples = max(map(len, rows))
    scores = [[answer.score for answer in row] for row in rows]
    votes = [[_vote(answer) for answer in row] for row in rows]
    found = {f"avg@{samples}": avg_at_k(scores, seed=seed)}
    found |= {f"pass@{k}": pass_at_k(scores, k, seed=seed) for k in ks}
    return found | {f"maj@{k}": maj_at_k(votes, k, seed=seed) for k in ks if k > 1}


def beside(answers: Sequence[Answer]) -> Beside:
    """Compute what must be read beside the figures."""
    count = len(answers)
    ended = Counter(answer.finish_reason for answer in answers)
    given = [answer for answer in answers if answer.finish_reason not in ("failed", "filter")]
    calls = [call for answer in answers for call in answer.tool_calls]
    failed = sum(call["status"] == "sandbox-failure" for call in calls)
    wrong = sum(call["status"] not in ("success", "sandbox-failure") for call in calls)
    seconds = sum(answer.seconds for answer in answers)
    tokens = sum(answer.tokens for answer in answers)
    return Beside(
        truncated=ended["length"] / count,
        context_full=ended["context"] / count,
        filtered=ended["filter"] / count,
        failed=ended["failed"] / count,
        all_reasoning=sum(a.reason == ALL_REASONING for a in answers) / count,
        no_answer=sum(not a.extracted for a in given) / max(1, len(given)),
        could_not_tell=sum(a.score is None for a in answers) / count,
        calls_per_answer=len(calls) / count,
        failed_programs=wrong / len(calls) if calls else None,
        sandbox_failures=failed,
        mean_tokens=tokens / count,
        tokens_per_second=tokens / seconds if seconds else None,
        distinct=_mean_or_none(
            [
                (len({str(a.turns) for a in row}) - 1) / (len(row) - 1)
                for row in by_problem(answers).values()
                if len(row) > 1
            ]
        ),
    )


def keep_summary(
    directory: EvaluationDirectory,
    model: str,
    sources: Mapping[str, Mapping[str, Any]],
    ks: Sequence[int],
    seed: int,
) -> dict[str, Any]:
    """Write `summary.json`, `summary.md` and `answers.parquet` of an evaluation; returns the first.

    Args:
        directory: An open directory with every answer.
        model: What was evaluated.
        sources: By benchmark, where its problems are from.
        ks: The k of pass@k and maj@k.
        seed: Of the bootstraps.
    """
    summary = {"model": model} | summarize(list(directory.answers.values()), sources, ks, seed)
    directory.write_parquet()
    directory.write("summary.json", json.dumps(summary, indent=2) + "\n")
    directory.write("summary.md", markdown(summary))
    return summary


def summarize(
    answers: Sequence[Answer],
    sources: Mapping[str, Mapping[str, Any]],
    ks: Sequence[int],
    seed: int = 0,
) -> dict[str, Any]:
    """Return what `summary.json` holds.

    Args:
        answers: Every answer.
        sources: By benchmark, where its problems are from.
        ks: The k of pass@k and maj@k.
        seed: Of the bootstraps.
    """
    benchmarks = {}
    for name, source in sources.items():
        own = [answer for answer in answers if answer.benchmark == name]
        found = figures(own, ks, seed)
        benchmarks[name] = {
            **source,
            "problems": len(by_problem(own)),
            "answers": len(own),
            "figures": {figure: estimate.to_dict() for figure, estimate in found.items()},
            "beside": asdict(beside(own)),
        }
    return {"benchmarks": benchmarks, "average": _average(benchmarks)}


def _average(benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The mean over benchmarks, each weighing the same, of every figure that all of them have."""
    tables = [benchmark["figures"] for benchmark in benchmarks.values()]
    average = {}
    for name in tables[0]:
        rows = [table.get(name) for table in tables]
        if all(row is not None for row in rows):
            average[name] = {
                "mean": _mean_or_none([row["mean"] for row in rows]),
                "sampling_error": _combined([row["sampling_error"] for row in rows]),
                "clustered_error": _combined([row["clustered_error"] for row in rows]),
            }
    return average


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _combined(errors: Sequence[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    return math.sqrt(sum(error**2 for error in known)) / len(known)


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as a Markdown table of figures and one of what is beside them."""
    figure_names = list(
        dict.fromkeys(name for b in summary["benchmarks"].values() for name in b["figures"])
    )
    lines = [
        "| benchmark | problems | " + " | ".join(figure_names) + " |",
        "|---|---|" + "---|" * len(figure_names),
    ]
    rows = [(n, b["problems"], b["figures"]) for n, b in summary["benchmarks"].items()]
    if len(rows) > 1:
        rows.append(("average", "", summary["average"]))
    for name, problems, table in rows:
        cells = [_cell(table.get(figure), problems) for figure in figure_names]
        lines.append(f"| {name} | {problems} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "In percent: value ± standard error over samples with the problems fixed / standard error "
        "clustered over problems.",
    ]
    if any(_left_out(cell, n) for _, n, table in rows for cell in table.values()):
        lines += [
            "",
            "**(n of N)**: the figure is over n problems; of the others fewer than its k answers "
            "could be graded, and they are left out of it.",
        ]
    lines += [
        "",
        "| benchmark | truncated | context full | filtered | failed | no answer | could not "
        "tell | calls per answer | failed programs | sandbox failures | mean tokens | tokens/s "
        "| distinct |",
        "|---|" + "---|" * 12,
    ]
    for name, benchmark in summary["benchmarks"].items():
        one = benchmark["beside"]
        lines.append(
            f"| {name} | {one['truncated']:.1%} | {one['context_full']:.1%} "
            f"| {one['filtered']:.1%} | {one['failed']:.1%} | {one['no_answer']:.1%} "
            f"| {one['could_not_tell']:.1%} | {one['calls_per_answer']:.2f} "
            f"| {_percent(one['failed_programs'])} | {one['sandbox_failures']} "
            f"| {one['mean_tokens']:.0f} | {_number(one['tokens_per_second'])} "
            f"| {_percent(one['distinct'])} |"
        )
    lines += ["", *(_origin(name, one) for name, one in summary["benchmarks"].items())]
    return "\n".join(lines) + "\n"


def _origin(name: str, benchmark: Mapping[str, Any]) -> str:
    revision, golds = benchmark["revision"], benchmark.get("golds")
    at = f", revision {revision}" if revision else ""
    warning = "; **its gold answers are not those known of it**" if golds == "other" else ""
    asked, whole = benchmark["problems"], benchmark.get("of")
    part = f"; **the first {asked} of its {whole} problems**" if whole and asked < whole else ""
    return f"- {name}: {benchmark['source']}{at}{part}{warning}"


def _vote(answer: Answer) -> Vote | None:
    if answer.score is None:
        return None
    return Vote(canonical(answer.extracted) if answer.extracted else None, answer.score == 1)


def _left_out(estimate: Mapping[str, Any], problems: int | str) -> bool:
    """Whether a figure is over fewer problems than the benchmark has."""
    return bool(problems) and estimate["problems"] < problems


def _cell(estimate: Mapping[str, Any] | None, problems: int | str) -> str:
    if estimate is None:
        return "–"
    over = f" ({estimate['problems']} of {problems})" if _left_out(estimate, problems) else ""
    if estimate["mean"] is None:
        return f"–{over}"
    errors = [estimate["sampling_error"], estimate["clustered_error"]]
    shown = " / ".join("–" if error is None else f"{100 * error:.1f}" for error in errors)
    return f"{100 * estimate['mean']:.1f} ± {shown}{over}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
