"""The theory, checked by computation: bias and variance of every estimator.

`exact_tables` enumerates small policies completely; `measured` works on gradients of a real model
that somebody hands over (`ctpo.training.measuring` does).
"""

from ctpo.theory.enumeration import World
from ctpo.theory.exact import exact_tables
from ctpo.theory.moments import Moments, estimator_moments, on_policy_moments
from ctpo.theory.tables import Table, documented

__all__ = [
    "Moments",
    "Table",
    "World",
    "documented",
    "estimator_moments",
    "exact_tables",
    "on_policy_moments",
]
