"""The report's tables as plain rows, for the page and for the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ctpo.report.reading import Evaluation, ReportError, Run, Score, read_evaluations

HEADINGS = ("problems", "decoding", "before", "after", "change")


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
        return "–" if math.isnan(self.change) else f"{100 * self.change:+.1f}"

    def cells(self) -> tuple[str, ...]:
        """The line as text, one cell for each of `HEADINGS`."""
        return (self.source, self.decoding, str(self.before), str(self.after), self.points)


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
    """A quantity that is small in a sound run, at its largest over all batches."""

    name: str
    metric: str
    worst: float
    meaning: str


_CHECKS = (
    (
        "on-policy log-ratio",
        "on_policy/log_rho_max",
        "Largest |log ρ| before a batch's first update. The policy has not moved yet, so anything "
        "but rounding means that log-probs do not match.",
    ),
    (
        "sampler and trainer",
        "sampler/logprob_gap_max",
        "Largest difference between what the sampler and the trainer call a token's "
        "log-probability, in nats. A product of ratios adds such differences up.",
    ),
    (
        "answers without a grade",
        "reward/unknown",
        "Share of answers the grader could not judge. They are left out, not counted as wrong.",
    ),
    (
        "sandbox failures",
        "tool/failure_rate",
        "Share of tool calls that got no answer through no fault of the program.",
    ),
    (
        "groups without signal",
        "reward/zero_std_groups",
        "Share of groups whose answers all got the same reward, which teach nothing. It grows "
        "as a model masters its problems.",
    ),
)


def checks(run: Run) -> list[Check]:
    """The quantities to look at before trusting a run.

    Returns:
        One check per metric present in `metrics.jsonl`.
    """
    found = []
    for name, metric, meaning in _CHECKS:
        _, values = run.series(metric)
        if len(values):
            found.append(Check(name, metric, float(values.max()), meaning))
    return found
