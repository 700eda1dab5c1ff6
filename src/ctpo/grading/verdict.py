r"""Is this response's answer right? The three outcomes are kept apart."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from ctpo.grading.box import LongBoxError, UnclosedBoxError, boxes
from ctpo.grading.exact import value as exact_value
from ctpo.grading.judge import Finding, Outcome, compact, judge
from ctpo.grading.pool import HARD_SECONDS, shared_pool
from ctpo.grading.reading.answer import MAX_LENGTH, take_apart
from ctpo.grading.reading.normal import normal
from ctpo.grading.reading.tree import Node, Undecided

Path = Literal[
    "box", "gold", "text", "integer", "rational", "list", "base", "words", "latex", "none"
]

DEFAULT_TIMEOUT = 5.0
# At the longest a worker is ended by the clock; of less than the shortest an alarm makes none.
SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 0.001, HARD_SECONDS

logger = logging.getLogger(__name__)

# What nearly every answer is, and many thousands of them a second.
_PLAIN = re.compile(r"[+-]?[0-9]{1,4000}")

# What an outcome is worth; None is no score, which is not 0.
SCORES: dict[Outcome, float | None] = {"right": 1.0, "wrong": 0.0, "could-not-tell": None}


@dataclass(frozen=True)
class Verdict:
    """An outcome and its grounds.

    Attributes:
        outcome: `right`, `wrong`, or `could-not-tell` where neither could be shown.
        extracted: What stood in the box; None if there was none.
        path: What decided: `box` (there was none, or none that could be read), `gold` (the gold
            answer itself cannot be used), `text` (the same text), `integer`, `rational`, `list`
            (exact numbers), `base` (a number in another base), `words`, `latex` (a worker compared
            two formulas) or `none` (no path led to an outcome).
        reason: The grounds, in a few words; with `explain`, how both sides were read, too.
    """

    outcome: Outcome
    extracted: str | None
    path: Path
    reason: str

    @property
    def score(self) -> float | None:
        """1 for right, 0 for wrong, None where it could not be told."""
        return SCORES[self.outcome]


class _TakesMore(Exception):  # noqa: N818 - not a fault
    """The values are no rational numbers, so a worker must compare them."""


class _Exact:
    """Compares rational numbers and leaves the rest to a worker."""

    def same(self, left: Node, right: Node) -> bool:
        one, other = exact_value(left), exact_value(right)
        if one is None or other is None:
            raise _TakesMore
        return one == other

    def same_relation(self, left: Node, right: Node) -> bool:
        raise _TakesMore

    same_matrix = same_relation

    def place(self, value: Node) -> float:
        if value.op == "sym" or value.op == "neg":
            raise _TakesMore
        exact = exact_value(value)
        if exact is None:
            raise _TakesMore
        return exact  # type: ignore[return-value]


def grade(
    text: str,
    gold: str | float | Sequence[str | float],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    explain: bool = False,
) -> Verdict:
    r"""Grades a response by what it puts in `\boxed{...}` last.

    No text of either makes it raise or hang.

    Several boxes in one sentence, as in `\boxed{3} and \boxed{4}`, are one answer. Numbers are
    compared exactly, formulas in a worker process. A decimal is what it says, so 0.33 is not 1/3.
    Any number of threads may call this.

    Args:
        text: The assistant's own words. What a tool printed must be left out, or a printed box
            counts.
        gold: The right answer, in LaTeX or plain; it may stand in a box or between dollar signs,
            or be a number. Of several, each is right: `wrong` is what is wrong against all of them.
        timeout: Processor seconds a worker may take over a formula, at most a minute.
        explain: Whether the verdict's reason also tells how the answer and the gold answer were
            read.

    Returns:
        The verdict. No box, an empty or an unclosed one is wrong: no answer was given. A box that
        cannot be read, or compared in time, a gold answer that cannot be used, and a fault of the
        grader itself are `could-not-tell`.

    Raises:
        TypeError: The response is no text, the gold answer neither text nor a number nor a list of
            these, or the timeout no number.
        ValueError: A number that is the gold answer is not finite, or the timeout out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f"the response must be text, not {type(text).__name__}")
    check_timeout(timeout)
    if isinstance(gold, Sequence) and not isinstance(gold, str | bytes | bytearray | memoryview):
        golds = [gold_text(one, f"gold[{at}]") for at, one in enumerate(gold)]
        each = [_graded(text, one, timeout, explain) for one in golds]
        each = each or [Verdict("could-not-tell", None, "gold", "there is no gold answer")]
        return min(each, key=lambda one: ("right", "could-not-tell", "wrong").index(one.outcome))
    return _graded(text, gold_text(gold, "gold", " or a list of these"), timeout, explain)


def check_timeout(timeout: object) -> None:
    """Checks the processor seconds of a comparison.

    Raises:
        TypeError: It is no number.
        ValueError: It is not finite, too short or too long.
    """
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        raise TypeError(f"timeout must be a number, not {type(timeout).__name__}")
    if not SHORTEST_TIMEOUT <= timeout <= LONGEST_TIMEOUT:
        raise ValueError(
            f"timeout must be from {SHORTEST_TIMEOUT} to {LONGEST_TIMEOUT:g} s of processor time, "
            f"not {timeout}"
        )


def gold_text(gold: object, name: str, also: str = "") -> str:
    """Returns a gold answer as text.

    Args:
        gold: Text or a number.
        name: What it is called in messages.
        also: What else would do.

    Raises:
        TypeError: It is neither.
        ValueError: It is NaN or infinite, as which data sets have what is missing.
    """
    if isinstance(gold, str):
        return gold
    if not isinstance(gold, Real) or isinstance(gold, bool):
        joint = ", a number" if also else " or a number"
        raise TypeError(f"{name} must be text{joint}{also}, not {type(gold).__name__}")
    # Not `isfinite`, for which an int may be too large.
    if not abs(gold) < math.inf:  # type: ignore[operator]
        raise ValueError(f"{name} is {gold}; a number must be finite")
    return str(gold)


def _graded(text: str, gold: str, timeout: float, explain: bool) -> Verdict:
    box: str | None = None
    try:
        wanted = _gold(gold)
        if isinstance(wanted, Verdict):
            return wanted
        try:
            found = boxes(text)
        except UnclosedBoxError as error:
            return Verdict("wrong", None, "box", str(error))
        except LongBoxError as error:
            return Verdict("could-not-tell", None, "box", str(error))
        if found is None:
            return Verdict("wrong", None, "box", "no box")
        if not found.answer:
            return Verdict("wrong", "", "box", "empty box")
        box = found.answer
        verdict = _compared(box, wanted, timeout)
        if verdict.outcome == "wrong" and _one_is_right(found.parts, wanted, timeout):
            reason = "several boxes, one of which alone would be right"
            verdict = Verdict("could-not-tell", box, verdict.path, reason)
        if explain:
            readings = f"answer read as {_shown(box)}; gold read as {_shown(wanted)}"
            verdict = Verdict(verdict.outcome, box, verdict.path, f"{verdict.reason}; {readings}")
        return verdict
    except Exception as error:
        # A fault in here must not be scored, and must not end a training run either.
        logger.exception("the grader failed on %.200r against %.200r", box, gold)
        return Verdict("could-not-tell", box, "none", f"{type(error).__name__}: {error}"[:200])


def _gold(gold: str) -> str | Verdict:
    r"""Returns the gold answer without its boxes, or why it cannot be used."""
    try:
        found = boxes(gold, everywhere=True)
        gold = (found.answer if found else gold).strip()
        reason = "" if gold else "the gold answer is empty"
    except (UnclosedBoxError, LongBoxError) as error:
        reason = f"the gold answer is malformed: {error}"
    return Verdict("could-not-tell", None, "gold", reason) if reason else gold


def _compared(box: str, gold: str, timeout: float) -> Verdict:
    if box == gold:
        return Verdict("right", box, "text", "same text")
    if _PLAIN.fullmatch(box) and _PLAIN.fullmatch(gold):
        return Verdict(
            "right" if int(box) == int(gold) else "wrong", box, "integer", "exact numbers"
        )
    try:
        finding = judge(box, gold, _Exact())
        return Verdict(finding.outcome, box, _path(finding), finding.reason)
    except _TakesMore:
        found = shared_pool().compare(box, gold, timeout)
        outcome: Outcome = (
            "could-not-tell" if found.equal is None else "right" if found.equal else "wrong"
        )
        return Verdict(outcome, box, "latex", found.reason)


def _one_is_right(parts: list[str], wanted: str, timeout: float) -> bool:
    """Whether one of the answer's boxes alone is right, where it is not sure that all count."""
    return any(_compared(part, wanted, timeout).outcome == "right" for part in parts)


def _path(finding: Finding) -> Path:
    if finding.reason == "same text":
        return "text"
    if finding.reason.startswith("the gold answer cannot be read"):
        return "gold"
    tree = finding.tree
    if tree is None:
        return "none" if finding.outcome == "could-not-tell" else "words"
    if tree.op in ("text", "base"):
        return "words" if tree.op == "text" else "base"
    if tree.op in ("list", "tuple", "set"):
        return "list"
    exact = exact_value(tree)
    if exact is None and finding.outcome == "could-not-tell":
        return "none"
    whole = exact is not None and exact.denominator == 1 and "/" not in finding.gold
    return "integer" if whole else "rational"


def _shown(text: str) -> str:
    """How a text is read, for a person."""
    taken = take_apart(text)
    if taken.choice:
        rest = taken.choice.rest
        return f"choice {taken.choice.letter}" + (f", or {_shown(rest)}" if rest else "")
    try:
        return " or ".join(dict.fromkeys(map(str, taken.readings()[0])))
    except (Undecided, RecursionError) as error:
        return f"{taken.text[:200]!r}, which cannot be read: {str(error)[:200]}"


def canonical(answer: str) -> str:
    r"""Writes an answer so that equal numbers and equal notation give equal text.

    For grouping the answers of a majority vote, where comparing each with each would be slow.
    Formulas that are equal but written differently stay apart.

    Returns:
        A key, such as `1/2` for both `0.5` and `\frac{1}{2}`.
    """
    taken = take_apart(answer[:MAX_LENGTH])
    try:
        return _key(normal(taken.readings()[0][0].tree))
    except (Undecided, RecursionError):
        return compact(taken.text)


def _key(tree: Node) -> str:
    if tree.op == "rel" and tree.value == ("=",) and tree.args[0].op == "sym":
        tree = normal(tree.args[1])
    if tree.op == "tuple":
        return f"{tree.value[0]}{','.join(map(_key, tree.args))}{tree.value[1]}"
    if tree.op in ("list", "set"):
        return ",".join(sorted(set(map(_key, tree.args))))
    exact = exact_value(tree)
    return str(tree if exact is None else exact)
