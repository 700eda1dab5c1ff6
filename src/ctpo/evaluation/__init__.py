"""avg@k of a policy on problems, with intervals."""

from ctpo.evaluation.evaluate import Evaluation, Policy, Record, Response, evaluate
from ctpo.evaluation.statistics import Estimate, avg_at_k

__all__ = ["Estimate", "Evaluation", "Policy", "Record", "Response", "avg_at_k", "evaluate"]
