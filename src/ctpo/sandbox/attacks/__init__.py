"""Hostile programs to try on a sandbox, and the targets that show whether they reach their goal."""

from ctpo.sandbox.attacks.attack import Attack, Outcome, attacks, try_attack
from ctpo.sandbox.attacks.targets import Targets

__all__ = ["Attack", "Outcome", "Targets", "attacks", "try_attack"]
