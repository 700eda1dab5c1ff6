"""The propositions in rational arithmetic: equalities are equal, inequalities without rounding.

Two tokens, three positions, probabilities and advantages that are fractions. The score of a softmax
policy with one parameter vector per prefix is e_a - π(·|s), which is rational too. Written without
torch and without the library, so that it is a second opinion on both.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import prod

from ctpo.theory.tables import Table

LENGTH = 3
Prefix = tuple[int, ...]


def _policy(numerators: tuple[int, ...], denominator: int) -> dict[Prefix, tuple[Fraction, ...]]:
    """Return π(·|s) by prefix; the numerators are those of token 0, prefixes in order of length."""
    prefixes = [s for t in range(LENGTH) for s in product((0, 1), repeat=t)]
    return {
        s: (Fraction(n, denominator), 1 - Fraction(n, denominator))
        for s, n in zip(prefixes, numerators, strict=True)
    }


OLD = _policy((5, 3, 6, 4, 7, 2, 5), 10)
NEW = _policy((6, 5, 4, 7, 6, 3, 2), 10)
# A(s, a) without structure, for each prefix with its next token.
ADVANTAGE = {
    s + (a,): Fraction((7 * i + 3 * a) % 11 - 5, 4) for i, s in enumerate(OLD) for a in (0, 1)
}
REWARD = {tau: Fraction(sum(tau) % 2) for tau in product((0, 1), repeat=LENGTH)}


def _probability(policy: dict[Prefix, tuple[Fraction, ...]], tau: Prefix) -> Fraction:
    return prod((policy[tau[:t]][a] for t, a in enumerate(tau)), start=Fraction(1))


def _ratios(tau: Prefix) -> list[Fraction]:
    return [NEW[tau[:t]][a] / OLD[tau[:t]][a] for t, a in enumerate(tau)]


def _weights(name: str, tau: Prefix, t: int) -> Fraction:
    """Return w_t of a ratio; those that are roots are not rational and not here."""
    ratios = _ratios(tau)
    if name == "token":
        return ratios[t]
    if name == "cumulative":
        return prod(ratios[: t + 1], start=Fraction(1))
    if name == "full-sequence":
        return prod(ratios, start=Fraction(1))
    assert name == "minimum-prefix"
    return ratios[t] * min(ratios[:t], default=Fraction(1))


def _gradient(
    policy: dict[Prefix, tuple[Fraction, ...]], name: str | None, terminal: bool
) -> dict[tuple[Prefix, int], Fraction]:
    """Return E_policy[Σ_t w_t A_t ∇log π_NEW] by parameter; without a name w = 1."""
    total = {(s, b): Fraction(0) for s in NEW for b in (0, 1)}
    for tau in product((0, 1), repeat=LENGTH):
        for t, a in enumerate(tau):
            s = tau[:t]
            weight = Fraction(1) if name is None else _weights(name, tau, t)
            weight *= REWARD[tau] if terminal else ADVANTAGE[s + (a,)]
            for b in (0, 1):
                score = Fraction(int(a == b)) - NEW[s][b]
                total[s, b] += _probability(policy, tau) * weight * score
    return total


def _value(policy: dict[Prefix, tuple[Fraction, ...]], s: Prefix) -> Fraction:
    """Return the expected reward from a prefix on."""
    if len(s) == LENGTH:
        return REWARD[s]
    return sum((policy[s][a] * _value(policy, s + (a,)) for a in (0, 1)), start=Fraction(0))


def rational_check() -> Table:
    """Return what the propositions say of one small problem, as fractions.

    A difference that the theory says is 0 is exactly 0 here.
    """
    rows: list[tuple[str, str, str]] = []

    def add(what: str, claim: str, value: Fraction) -> None:
        rows.append((what, claim, str(value)))

    token_level = _gradient(NEW, None, terminal=False)
    objective = _gradient(NEW, None, terminal=True)
    for terminal, target, title in (
        (False, token_level, "token-level gradient, given A"),
        (True, objective, "∇J, reward at the end"),
    ):
        for name in ("token", "minimum-prefix", "cumulative", "full-sequence"):
            mean = _gradient(OLD, name, terminal)
            worst = max(abs(mean[key] - target[key]) for key in target)
            unbiased = name == "full-sequence" or (name == "cumulative" and not terminal)
            add(f"{title}: largest bias of {name}", "= 0" if unbiased else "> 0", worst)
    all_tau = list(product((0, 1), repeat=LENGTH))
    # Σ_t E_old[ρ_t A_old] against J(new) - J(old).
    surrogate = sum(
        (
            _probability(OLD, tau)
            * _weights("cumulative", tau, t)
            * (_value(OLD, tau[: t + 1]) - _value(OLD, tau[:t]))
            for tau in all_tau
            for t in range(LENGTH)
        ),
        start=Fraction(0),
    )
    improvement = _value(NEW, ()) - _value(OLD, ())
    add("Σ_t E_old[ρ_t A_old] - (J(new) - J(old))", "= 0", surrogate - improvement)
    full = _variance("full-sequence", LENGTH - 1)
    for t in range(LENGTH - 1):
        gap = full - _variance("cumulative", t)
        add(f"Var ρ_H - Var ρ_t at t = {t + 1}, H = {LENGTH}", "> 0", gap)
    return Table(
        "rational", "In rational arithmetic", ("quantity", "claimed", "exactly"), tuple(rows)
    )


def _variance(name: str, t: int) -> Fraction:
    all_tau = list(product((0, 1), repeat=LENGTH))
    mean = sum((_probability(OLD, x) * _weights(name, x, t) for x in all_tau), start=Fraction(0))
    square = sum(
        (_probability(OLD, x) * _weights(name, x, t) ** 2 for x in all_tau), start=Fraction(0)
    )
    return square - mean**2


def cancelling_example() -> Table:
    """Return a given advantage for which the full ratio has the *smaller* gradient variance.

    One parameter, two tokens drawn with the same probability p = σ(θ) of a 1, A_1 = 1 and
    A_2(a_1, a_2) = -(a_1 - p)/(a_2 - p). The two terms A_t ∇log π(a_t) of a trajectory cancel. One
    common factor in front of both, the full ratio, leaves 0 on every trajectory; the cumulative
    ratio has a factor of its own in front of each and leaves a spread.
    """
    old, new = Fraction(1, 2), Fraction(2, 3)
    means = {"cumulative": Fraction(0), "full-sequence": Fraction(0)}
    squares = dict(means)
    for first, second in product((0, 1), repeat=2):
        probability = prod(old if a else 1 - old for a in (first, second))
        ratio_1, ratio_2 = (
            (new if a else 1 - new) / (old if a else 1 - old) for a in (first, second)
        )
        terms = (first - new, -(first - new))  # A_t · (a_t - p)
        for name, weights in (
            ("cumulative", (ratio_1, ratio_1 * ratio_2)),
            ("full-sequence", (ratio_1 * ratio_2, ratio_1 * ratio_2)),
        ):
            gradient = sum((w * x for w, x in zip(weights, terms, strict=True)), start=Fraction(0))
            means[name] += probability * gradient
            squares[name] += probability * gradient**2
    rows = tuple((name, str(means[name]), str(squares[name] - means[name] ** 2)) for name in means)
    return Table(
        "counterexample",
        "Where the full ratio's gradient varies less",
        ("ratio", "mean of the gradient", "variance of the gradient"),
        rows,
    )
