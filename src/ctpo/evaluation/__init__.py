"""avg@k, pass@k and maj@k of a policy on problems, with their errors."""

from ctpo.evaluation.asking import Policy
from ctpo.evaluation.estimate import Estimate
from ctpo.evaluation.evaluate import Evaluation, evaluate
from ctpo.evaluation.majority import Vote
from ctpo.evaluation.paired import Comparison, compare
from ctpo.evaluation.statistics import avg_at_k, maj_at_k, pass_at_k

__all__ = [
    "Comparison",
    "Estimate",
    "Evaluation",
    "Policy",
    "Vote",
    "avg_at_k",
    "compare",
    "evaluate",
    "maj_at_k",
    "pass_at_k",
]
