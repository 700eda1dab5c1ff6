"""Hostile programs to try on a sandbox, and the stand that sees whether they reach their goal."""

from ctpo.sandbox.attacks.attack import Attack, Outcome, attacks, try_attack
from ctpo.sandbox.attacks.targets import Stand

__all__ = ["Attack", "Outcome", "Stand", "attacks", "try_attack"]
