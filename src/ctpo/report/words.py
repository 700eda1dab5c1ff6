"""What a run's page says in words: facts, what to read off the figures, commands to go on with."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

import numpy as np

from ctpo.report.by_position import limits
from ctpo.report.figures import PANELS
from ctpo.report.positions import ByPosition, fit_spread
from ctpo.report.reading import Run

PAPER = "https://arxiv.org/abs/2605.07331"
# A word, what it is, and where it is explained.
TERMS = (
    (
        "ρₜ",
        "the cumulative ratio: how much likelier or less likely the policy being trained finds the "
        "first t tokens of an answer than the policy that wrote it, π_θ/π_old multiplied up over "
        "those tokens. Before the first update it is 1; log rₜ is what token t adds to log ρₜ.",
        PAPER,
        "CTPO",
    ),
    (
        "Window",
        "how far log ρₜ may go before a token stops teaching. CTPO's widens as √t, because a sum "
        "of t independent terms spreads like √t.",
        PAPER,
        "CTPO",
    ),
    (
        "Clipping",
        "a token beyond the edge that counts for its answer (the upper one for a good answer, the "
        "lower one for a bad one) gives no gradient, so that one batch cannot pull the policy "
        "farther.",
        "https://arxiv.org/abs/1707.06347",
        "PPO",
    ),
)
_QUANTITIES = {
    "clip-rate": ("clip_total", "the clip rate"),
    "ratio-spread": ("std", "the spread"),
    "ratio-drift": ("mean", "the mean of log ρₜ"),
}


def facts(run: Run) -> list[tuple[str, str]]:
    """What was trained and how, a line each; what the recipe does not say is left out."""
    of = run.settings.get
    model = of("model.path")
    if model is None and (layers := of("model.tiny.layers")) is not None:
        hidden = of("model.tiny.hidden_size")
        model = f"a Qwen3 made from its configuration, {layers} layers of {hidden}"
    sizes = (of("rollout.prompts_per_batch"), of("rollout.responses_per_prompt"))
    lines = [
        ("preset", of("objective.preset") or of("objective.import")),
        ("seed", of("seed")),
        ("model", model),
        ("engine", of("engine")),
        (
            "batches",
            None
            if None in sizes
            else f"{run.batch} of {of('optimization.batches')}, each of {sizes[0]} problems × "
            f"{sizes[1]} answers and {of('optimization.updates_per_batch')} updates",
        ),
        ("differs", _changes(run)),
        ("speed", _speed(run)),
    ]
    return [(name, str(text)) for name, text in lines if text is not None]


def _changes(run: Run) -> str | None:
    if run.changes is None:
        return None
    base, pairs = run.changes["from"], run.changes["changes"]
    said = ", ".join(
        f"{key} {new}" + ("" if base is None else f" instead of {old}")
        for key, (old, new) in pairs.items()
    )
    name = "the defaults" if base is None else f"the shipped recipe {base}"
    return f"from {name} in {said or 'nothing'}"


def _speed(run: Run) -> str | None:
    """Tokens that the policy wrote while training, over the seconds of each phase."""
    seconds = run.timing or {}
    answers = math.prod(
        run.settings.get(f"rollout.{name}") or 0
        for name in ("prompts_per_batch", "responses_per_prompt")
    )
    tokens = answers * float(run.series("response/length")[1].sum())
    said = [
        f"{tokens / seconds[phase]:,.0f} {verb}"
        for phase, verb in (("generation", "generated"), ("updates", "trained on"))
        if tokens and seconds.get(phase, 0.0) > 0
    ]
    return f"tokens a second: {', '.join(said)}" if said else None


def alts(run: Run) -> dict[str, str]:
    """Say what each figure shows, for who does not see it."""
    found = {}
    points = run.scores("sampled")
    if points:
        found["accuracy"] = "Held-out accuracy, sampled: " + ", ".join(
            f"{scores.overall.percent} after batch {batch}" for batch, scores in points
        )
    if run.positions is not None and len((whole := run.positions.pool()).position):
        for figure, (name, said) in _QUANTITIES.items():
            values = getattr(whole, name)
            marks = (("at first", 0), ("at last", -1), ("farthest from 0", np.abs(values).argmax()))
            found[figure] = f"Against position t, {said} over the whole run: " + ", ".join(
                f"{when} {_amount(name, values[i])} (t = {whole.position[i]:g})"
                for when, i in marks
            )
    moved = [
        f"{title} from {values[0] + 0.0:.3g} to {values[-1] + 0.0:.3g}"
        for name, title in PANELS
        if len(values := run.series(name)[1]) and "$" not in title
    ]
    return found | {"training": "Over training: " + ", ".join(moved)}


def notes(run: Run) -> dict[str, list[str]]:
    """Say of the figures by position what needs an explanation: few answers, the exponent."""
    found: dict[str, list[str]] = {name: [] for name in _QUANTITIES}
    if run.positions is None:
        return found
    whole = run.positions.pool()
    thirds = [run.positions.pool(batches) for batches in run.positions.thirds()]
    for figure, (name, said) in _QUANTITIES.items():
        parts = [whole] if name == "clip_total" else thirds
        found[figure] += list(_rare(parts, name, said))
    if len(whole.position) and not math.isnan(power := fit_spread(whole).power):
        found["ratio-spread"].append(
            f"Fitted over the whole run, the spread grows as t to the {power:.2f}{_ends(whole)}; "
            "one half is what independent tokens would give."
        )
    return found


def _ends(whole: ByPosition) -> str:
    """Say between what the fitted exponent lies, where there are batches enough to know."""
    if "power" not in whole.intervals:
        return ""
    low, high = whole.intervals["power"]
    return f" (95 % over batches: {low:.2f} to {high:.2f})"


def _rare(parts: list[ByPosition], name: str, said: str) -> Iterator[str]:
    """Explain values where few answers are that stand out from those where there are many."""
    curves = [(part, getattr(part, name)) for part in parts]
    usual = max((v for p, values in curves for v in values[p.common]), key=abs, default=0.0)
    rare = [
        (abs(values[i]), values[i], part.position[i], part.responses[i], part.reach[i])
        for part, values in curves
        for i in np.flatnonzero(~part.common & (np.abs(values) > 1.3 * abs(usual)))
    ]
    if not rare:
        return
    positions = [position for _, _, position, _, _ in rare]
    _, farthest, _, responses, reach = max(rare)
    first, last = min(positions), max(positions)
    low, high = limits(curves)
    yield (
        f"At t = {first:g}{f'–{last:g}' if last > first else ''} {said} comes to "
        f"{_amount(name, farthest)}, elsewhere to {_amount(name, usual)} at the farthest: only "
        f"{responses:.0f} answers, {100 * reach:.1f} %, are that long, so that a few of them "
        f"decide it.{'' if low <= farthest <= high else ' The axis does not stretch to it.'}"
    )


def _amount(name: str, value: float) -> str:
    return f"{100 * value + 0.0:.1f} %" if name == "clip_total" else f"{value + 0.0:.3g}"


def commands(run: Run) -> list[tuple[str, str]]:
    """What to do next: purpose and command."""
    path = shlex.quote(str(run.path))
    first = {
        "running": [("watch it", f"ctpo watch {path}")],
        "stopped": [("go on with it", f"ctpo train --resume {path}")],
        "done": [("evaluate its model again", f"ctpo eval {path}")],
    }[run.state]
    return [
        *first,
        ("run the same again", f"ctpo train {path}/recipe.toml"),
        ("draw this page again", f"ctpo report {path}"),
        ("draw it over another run", f"ctpo report {path} runs/OTHER"),
        ("say how two runs differ", f"ctpo compare {path} runs/OTHER"),
        ("see every number by position", f"ctpo analyze {path}/positions.parquet"),
    ]
