r"""Is this answer right: exact, fast for numbers, with "could not tell" apart from "wrong"."""

from ctpo.grading.box import last_box
from ctpo.grading.verdict import SCORES, Grade, Verdict, grade

__all__ = ["SCORES", "Grade", "Verdict", "grade", "last_box"]
