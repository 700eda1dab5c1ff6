"""What made two log-probs of the same tokens differ: the signature that each cause leaves.

Two facts carry most of it. Tokens are samples: where they are of the old policy, E[r] = 1, so that
the mean of log r is not positive; where they are of the new one it is not negative. And a fault has
a shape: one side of 0, a neighbour's value, a function of the probability, a decay with position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from ctpo.report.log_rows import Response

# On this many tokens, responses and tokens of a response a signature is as clear as on all.
_TOKENS, _ROWS, _PREFIX = 3_000, 256, 64
# Fewer tokens can look like anything.
_FEW = 32
# Standard errors from 0 that are no chance.
SIGMAS = 4.0
# Largest |log r| that kernels, shapes and logits in half precision make.
NOISE = 2.0**-5

_TRUNCATED = (
    "set top_p=1, top_k=0 and min_p=0, or take the old log-probs from the trainer: tokens that the "
    "sampler never draws have no ratio"
)


@dataclass(frozen=True)
class Cause:
    """Why log-probs differ.

    Attributes:
        name: `none`, `updates`, `small differences`, or what went wrong.
        words: What was seen.
        advice: What to do; empty where nothing is to be done.
        also: Other causes that would look the same.
    """

    name: str
    words: str
    advice: str = ""
    also: tuple[str, ...] = ()

    @property
    def is_fault(self) -> bool:
        """Whether something is to be mended."""
        return self.name not in ("none", "updates", "small differences")


class Sample:
    """Policy tokens: by response, [T_i] each, and all of them one after the other, [N]."""

    def __init__(self, responses: Sequence[Response]) -> None:
        self.rows = [(r.new[r.mask], r.old[r.mask]) for r in responses if r.mask.any()]
        self.new, self.old = (np.concatenate([row[side] for row in self.rows]) for side in (0, 1))
        self.position = np.concatenate([np.arange(1, len(row[0]) + 1) for row in self.rows])
        self.log_r = self.new - self.old
        sums = np.array([(new - old).sum() for new, old in self.rows])
        self.drift = _deviations(sums)
        signed = [
            r.advantages[r.mask].mean()
            for r in responses
            if r.mask.any() and r.advantages is not None
        ]
        # Updates raise what has an advantage: the sign of this says which side came later.
        self.gain = 0.0
        if len(signed) == len(sums):
            self.gain = _deviations(sums * (np.array(signed) - np.mean(signed)))
        with np.errstate(invalid="ignore", divide="ignore"):
            self.correlation = float(np.nan_to_num(np.corrcoef(self.new, self.old)[0, 1]))


def shifted_mask(responses: Sequence[Response]) -> Cause | None:
    """Padding is 0: a mask off by one has it at one end, and leaves one token out at the other."""
    found: dict[str, list[bool]] = {"left": [], "right": []}
    inside = [np.zeros(1, dtype=bool)]
    for r in responses:
        if not r.mask.any() or r.mask.all():
            continue
        filled = (r.new != 0) & (r.old != 0)
        first, last = r.mask.nonzero()[0][[0, -1]]
        before, after = filled[:first], filled[last + 1 :]
        found["left"].append(not filled[first] and after.sum() == 1 and bool(after[0]))
        found["right"].append(not filled[last] and before.sum() == 1 and bool(before[-1]))
        inside.append(~filled[r.mask][1:-1])
    for side, flags in found.items():
        if flags and np.mean(flags) > 0.5 and np.concatenate(inside).mean() < 0.05:
            words = (
                f"the mask is shifted by one token to the {side} of the log-probs: it takes in "
                "padding (log-probs that are 0) at one end and leaves a token out at the other"
            )
            return Cause("shifted mask", words, "shift mask or log-probs by one token")
    return None


def shifted(sample: Sample) -> Cause | None:
    """The neighbour's value fits better."""
    apart = np.abs(sample.log_r).mean()
    for shift in (1, -1, 2, -2, 3, -3):
        near = slice(max(shift, 0), min(shift, 0) or None)
        far = slice(max(-shift, 0), min(-shift, 0) or None)
        pieces = [np.abs(new[near] - old[far]) for new, old in sample.rows if len(new) > 4]
        if pieces and np.concatenate(pieces).mean() < 0.4 * apart and sample.correlation < 0.9:
            side, count = "right" if shift > 0 else "left", abs(shift)
            words = (
                f"the new log-probs are shifted by {count} token{'s' * (count > 1)} to the {side} "
                f"of the old ones: moved back, they differ by {np.concatenate(pieces).mean():.2g} "
                f"nats on average, not by {apart:.2g}"
            )
            advice = (
                "the logits at token t are those of token t+1: cut prompt, mask and log-probs of "
                "both sides at the same place, and apply the same mask to both"
            )
            return Cause("shifted mask", words, advice)
    return None


def other_rows(sample: Sample) -> Cause | None:
    """Another response's values fit better, both ways."""
    rows = sample.rows[:_ROWS]
    width = min(_PREFIX, max(len(new) for new, _ in rows))
    new, old = np.full((2, len(rows), width), np.nan)
    for i, row in enumerate(rows):
        count = min(width, len(row[0]))
        new[i, :count], old[i, :count] = row[0][:count], row[1][:count]
    apart = np.array([np.nanmean(np.abs(line - old), axis=1) for line in new])
    own, scale = np.diag(apart), 0.3 * sample.old.std()
    best = apart.argmin(axis=1)
    wrong = (apart.min(axis=1) < 0.4 * own) & (apart.min(axis=0) < 0.4 * own) & (own > scale)
    advice = "keep old log-probs with their response when rows are shuffled, sorted or gathered"
    if wrong.sum() >= 2:
        i = int(wrong.argmax())
        words = (
            f"{wrong.sum()} of {len(rows)} rows hold another response's old log-probs: row {i} "
            f"fits those of row {best[i]}"
        )
        return Cause("swapped rows", words, advice)
    same = np.abs(np.sort(sample.new) - np.sort(sample.old)).mean()
    if sample.correlation < 0.6 and same < 0.05 * np.abs(sample.log_r).mean():
        words = "new and old are the same values in another order: of other rows or positions"
        return Cause("swapped rows", words, advice)
    return None


def rounded(sample: Sample, *, wholly: bool) -> Cause | None:
    """Every value is one of the few that a short format has."""
    for name, dtype, step in (
        ("bfloat16", torch.bfloat16, 2.0**-8),
        ("float16", torch.float16, 2.0**-11),
    ):
        sides = []
        for side, values in (("new", sample.new), ("old", sample.old)):
            held = torch.from_numpy(values).to(dtype).double().numpy()
            sides += [side] * bool((held == values)[values != 0].mean() > 0.99)
        if not sides or not np.any(sample.log_r) or len(np.unique(sample.old)) < _FEW:
            continue
        # Half a step of the format on either side that has it.
        bound = len(sides) * step * np.maximum(np.abs(sample.new), np.abs(sample.old)) + 1e-5
        explained = bool((np.abs(sample.log_r) <= bound).mean() > 0.99)
        if explained or not wholly:
            rest = "which explains all" if explained else "which explains a part"
            words = f"the {' and '.join(sides)} log-probs are rounded to {name}, {rest} of log r"
            words += f" (up to {np.quantile(np.abs(sample.log_r), 0.99):.2g} nats)"
            advice = "compute logits and log-probs in float32 and keep them so"
            return Cause("rounding", words, advice)
    return None


def truncated(sample: Sample, *, strictly: bool) -> Cause | None:
    """With cut sampling log r is the log of the kept mass, whatever the token."""
    low, high = np.quantile(sample.log_r, (0.01, 0.99))
    if strictly:
        found = sample.log_r.max() < 0.02 * -low or sample.log_r.min() > -0.02 * high
    else:
        square = np.square(sample.log_r).mean()
        found = abs(2 * sample.log_r.mean()) > 3 * square and abs(sample.drift) > 2 * SIGMAS
    mass = np.exp(-np.abs(sample.log_r))
    # Nobody samples from less; and of a few tokens all can be on one side by chance.
    if not found or mass.mean() < 0.15 or len(mass) < _FEW:
        return None
    side = "old" if sample.log_r.mean() < 0 else "new"
    words = (
        f"log r lies on one side of 0: the {side} log-probs are of truncated sampling (top-p, "
        f"top-k or min-p), which kept {mass.mean():.3f} of the mass on average and at least "
        f"{np.quantile(mass, 0.01):.2f}" + (", as top_p would" if mass.min() >= 0.5 else "")
    )
    return Cause("truncated sampling", words, _TRUNCATED)


def repetition(responses: Sequence[Response]) -> Cause | None:
    """Tokens that were there before are less likely on one side."""
    log_r, seen = [], []
    for r in responses[:_ROWS]:
        if r.tokens is not None and r.mask.any():
            ids = r.tokens[r.mask]
            again = np.ones(len(ids), dtype=bool)
            again[np.unique(ids, return_index=True)[1]] = False
            log_r.append((r.new - r.old)[r.mask])
            seen.append(again)
    if not log_r:
        return None
    values, again = np.concatenate(log_r), np.concatenate(seen)
    if not 0.02 < again.mean() < 0.98 or not values.std():
        return None
    gap = values[again].mean() - values[~again].mean()
    if gap**2 * again.mean() * (1 - again.mean()) < 0.32 * values.var():
        return None
    side = "old" if gap > 0 else "new"
    words = (
        f"tokens that occurred before are {abs(gap):.2f} nats less likely under the {side} "
        "log-probs: these are of sampling with a repetition penalty"
    )
    advice = "set repetition_penalty=1 (presence and frequency penalties 0) where rollouts are made"
    return Cause("repetition penalty", words, advice)


def temperature(sample: Sample) -> Cause | None:
    """A function of the token's probability.

    With p that probability and the rest spread over m tokens alike, dividing logits by τ gives
    log p/τ - log(p^(1/τ) + m^(1-1/τ) (1-p)^(1/τ)).
    """
    if sample.correlation < 0.95 or len(sample.new) < 50:
        return None
    step = -(-len(sample.new) // _TOKENS)
    new, old = (np.minimum(side[::step], -1e-9) for side in (sample.new, sample.old))
    best, ratio = 0.0, 1.0
    for base, log_r, sign in ((new, new - old, 1), (old, old - new, -1)):
        log_rest = np.log(-np.expm1(base))
        for inverse in np.geomspace(0.4, 2.5, 41):
            for others in (1, 5, 25, 125):
                rest = (1 - inverse) * np.log(others) + inverse * log_rest
                expected = (1 - inverse) * base + np.logaddexp(inverse * base, rest)
                fit = 1 - (log_r - expected).var() / log_r.var() if log_r.var() else 0.0
                if fit > best:
                    best, ratio = float(fit), float(inverse**-sign)
    if best < 0.72:
        return None
    words = (
        f"log r is a function of the token's probability ({best:.0%} of its variance): the old "
        f"log-probs are of a temperature {ratio:.2g} times that of the new ones"
    )
    return Cause("temperature", words, "divide logits by the sampling temperature on both sides")


def template(sample: Sample, must_agree: bool) -> Cause | None:
    """What stands before the response matters less from token to token."""
    doubt = 1 - np.exp(np.minimum((sample.new + sample.old) / 2, 0.0))
    edges, sizes = [0, *(2**k for k in range(20))], []
    for low, high in pairwise(edges):
        chosen = (sample.position > low) & (sample.position <= high)
        if chosen.sum() >= 16:
            # A sure token hardly changes, whatever is wrong.
            sizes.append(np.square(sample.log_r[chosen]).sum() / max(doubt[chosen].sum(), 1e-9))
    if len(sizes) < 4 or min(sizes) <= 0:
        return None
    logs = 0.5 * np.log(sizes)
    decay = -np.polyfit(np.log(2) * np.arange(len(logs)), logs, 1)[0]
    ratio = float(np.exp(logs[:2].mean() - logs[-2:].mean()))
    if decay < 0.12 or ratio < (1.8 if must_agree or sample.drift > SIGMAS else 2.0):
        return None
    words = (
        f"log r is {ratio:.1f} times as large at the first tokens as at the last: the two sides "
        "had another prompt, such as an extra token of a chat template, a BOS or a system text"
    )
    advice = (
        "compare the prompt's token ids of both sides; render the template once and pass ids on"
    )
    also = (
        ()
        if must_agree or sample.drift > SIGMAS
        else ("updates that changed the first tokens most",)
    )
    return Cause("template", words, advice, also)


def _deviations(values: np.ndarray) -> float:
    """Return a mean in its standard errors; 0 for a few values, of which none is known."""
    if len(values) < 8 or not values.std():
        return 0.0
    return float(values.mean() / (values.std(ddof=1) / len(values) ** 0.5))
