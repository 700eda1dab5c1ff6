"""Grade the answers of an evaluation again, as after a change of the grader: no model is asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctpo.evaluation.answers import Answer, graded_again
from ctpo.evaluation.directory import EvaluationDirectory, read_settings
from ctpo.evaluation.summary import keep_summary, markdown


@dataclass(frozen=True)
class Regraded:
    """What came of it.

    Attributes:
        answers: Answers there are.
        changed: Those whose grade is another now, before and after, without their texts.
        summary: The new figures as Markdown; "" of an evaluation that has none yet.
    """

    answers: int
    changed: Sequence[tuple[Answer, Answer]]
    summary: str

    def report(self) -> str:
        """Return what changed as Markdown: how many from which outcome to which, then each."""
        moves = Counter(f"{old.outcome} → {new.outcome}" for old, new in self.changed)
        lines = [f"grades      {len(self.changed)} of {self.answers} changed"]
        lines += [f"            {count} {move}" for move, count in moves.most_common()]
        if self.changed:
            lines += ["", "| answer | before | now | box | gold |", "|---|---|---|---|---|"]
        for old, new in sorted(self.changed, key=lambda pair: pair[1].key):
            boxes = [f"`{one.extracted}`" if one.extracted else "–" for one in (old, new)]
            lines.append(
                f"| {new.benchmark}/{new.problem_id} #{new.sample} "
                f"| {old.outcome} ({old.path}: {old.reason}) "
                f"| {new.outcome} ({new.path}: {new.reason}) "
                f"| {' → '.join(dict.fromkeys(boxes))} | `{new.gold}` |"
            )
        return "\n".join(lines) + "\n"


def regrade(place: Path) -> Regraded:
    """Grade every answer of a directory again and renew its summary.

    Each changed line of `answers.jsonl` keeps its old grade in `earlier`.

    Raises:
        FileNotFoundError: It is no evaluation's directory.
        ValueError: A line cannot be read, there are no answers, or another process is at work in
            it.
    """
    settings = read_settings(place)
    with EvaluationDirectory(place, settings, keep_failed=True) as directory:
        if not directory.answers:
            raise ValueError(f"{place} holds no answers")
        changed = directory.change(graded_again)
        known, text = place / "summary.json", ""
        if known.is_file():
            sources = settings["benchmarks"]
            names = {
                name
                for one in json.loads(known.read_text())["benchmarks"].values()
                for name in one["figures"]
            }
            ks = sorted(int(name.partition("@")[2]) for name in names if name.startswith("pass@"))
            text = markdown(
                keep_summary(directory, settings["model"], sources, ks, settings["seed"])
            )
        return Regraded(len(directory.answers), changed, text)
