"""The report's tables as plain rows, for the page and for the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ctpo.report.reading import Evaluation, ReportError, Run, Score, read_evaluations


@dataclass(frozen=True)
class BeforeAfter:
    """One line of the comparison of `evaluations/start.json` with `evaluations/final.json`.

    Attributes:
        source: The problems' source, or `all`.
        decoding: `sampled` or `greedy`.
        before: Score at the start.
        after: Score at the end.
    """

    source: str
    decoding: str
    before: Score
    after: Score

    @property
    def change(self) -> float:
        """Difference of the means, -1 to 1."""
        return self.after.mean - self.before.mean

    @property
    def points(self) -> str:
        """The change in percentage points, as text."""
        return "–" if math.isnan(self.change) else signed(100 * self.change, 1)


def before_after(run_dir: Path | str) -> list[BeforeAfter]:
    """Compare the model before training with the model after it.

    Returns:
        Sampled answers first, then greedy ones; within each first all problems, then each source.

    Raises:
        ReportError: An evaluation is missing or cannot be read; the message names the file.
    """
    evaluations = read_evaluations(run_dir)
    for name in ("start", "final"):
        if name not in evaluations:
            file = Path(run_dir) / "evaluations" / f"{name}.json"
            raise ReportError(f"{file} is missing; before and after cannot be compared without it")
    return compare(evaluations["start"], evaluations["final"])


def compare(start: Evaluation, final: Evaluation) -> list[BeforeAfter]:
    """Compare two evaluations.

    Returns:
        Rows as `before_after` gives them, of the decodings and sources that both have.
    """
    rows = []
    for decoding, before in start.decodings.items():
        after = final.decodings.get(decoding)
        if after is None:
            continue
        rows.append(BeforeAfter("all", decoding, before.overall, after.overall))
        rows += [
            BeforeAfter(source, decoding, score, after.by_source[source])
            for source, score in sorted(before.by_source.items())
            if source in after.by_source
        ]
    return rows


@dataclass(frozen=True)
class Phase:
    """Where time went: a phase, its seconds and its share of the total."""

    name: str
    seconds: float
    share: float


def phases(run: Run) -> list[Phase]:
    """Where the run's time went, longest phase first; empty where `timing.json` is absent."""
    timing = run.timing or {}
    # A total of nothing would divide by zero.
    total = sum(timing.values()) or math.inf
    longest_first = sorted(timing.items(), key=lambda phase: -phase[1])
    return [Phase(name, seconds, seconds / total) for name, seconds in longest_first]


@dataclass(frozen=True)
class Check:
    """A quantity that has its limit in a sound run, at its worst over all batches.

    Attributes:
        name: What is checked.
        metric: The key of `metrics.jsonl`.
        worst: The largest value, or the smallest where that is the worse end.
        limit: What it may be at most, or at least.
        at_least: Whether the limit is a lower one.
        meaning: What it is about.
    """

    name: str
    metric: str
    worst: float
    limit: float
    at_least: bool
    meaning: str

    @property
    def passed(self) -> bool:
        """Whether the worst value keeps the limit."""
        return self.worst >= self.limit if self.at_least else self.worst <= self.limit

    @property
    def value(self) -> str:
        """The worst value as text."""
        return f"{self.worst + 0.0:.3g}"  # a zero has no sign

    @property
    def bound(self) -> str:
        """The limit as text."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


# Name, metric, limit, whether that is the least, and what it means.
_CHECKS = (
    (
        "on-policy log-ratio",
        "on_policy/log_rho_max",
        1e-3,
        False,
        "Largest |log ρ| before a batch's first update. The policy has not moved yet, so anything "
        "but rounding means that log-probs do not match.",
    ),
    (
        "sampler and trainer",
        "sampler/logprob_gap_max",
        0.1,
        False,
        "Largest difference between what the sampler and the trainer call a token's "
        "log-probability, in nats. A product of ratios adds such differences up; of a sampler "
        "that is another engine, weigh them with rollout.mismatch_cap.",
    ),
    (
        "effective sample size",
        "ess",
        0.5,
        True,
        "Smallest share of the tokens that the weights leave to count, of one batch. Where few "
        "tokens have most of the weight, the gradient is theirs.",
    ),
    (
        "answers without a grade",
        "reward/unknown",
        0.05,
        False,
        "Largest share of a batch's answers that the grader could not judge. They are left out, "
        "not counted as wrong.",
    ),
    (
        "sandbox failures",
        "tool/failure_rate",
        0.02,
        False,
        "Largest share of a batch's tool calls that got no answer through no fault of the program.",
    ),
    (
        "groups without signal",
        "reward/zero_std_groups",
        0.95,
        False,
        "Largest share of a batch's groups whose answers all got the same reward, which teach "
        "nothing. It grows as a model masters its problems.",
    ),
)


def checks(run: Run) -> list[Check]:
    """The quantities to look at before trusting a run.

    Returns:
        One check per metric present in `metrics.jsonl`.
    """
    found = []
    for name, metric, limit, at_least, meaning in _CHECKS:
        _, values = run.series(metric)
        if len(values):
            worst = float(values.min() if at_least else values.max())
            found.append(Check(name, metric, worst, limit, at_least, meaning))
    return found


def signed(value: float, digits: int) -> str:
    """Return a number with its sign; what rounds to nothing is no "-0"."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"
