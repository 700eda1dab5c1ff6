r"""Is this answer right: exact, fast for numbers, with "could not tell" apart from "wrong"."""

from ctpo.grading.box import boxes, last_box
from ctpo.grading.verdict import SCORES, Outcome, Verdict, canonical, grade

__all__ = ["SCORES", "Outcome", "Verdict", "boxes", "canonical", "grade", "last_box"]
