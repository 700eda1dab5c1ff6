"""Logged rollouts of any trainer, analysed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ctpo.objective import (
    Calibration,
    CumulativeRatio,
    LogWindow,
    Objective,
    PositionStatistics,
    calibrate,
    preset,
)
from ctpo.report.analysis import Analysis
from ctpo.report.causes import find_cause
from ctpo.report.log_files import open_log
from ctpo.report.log_rows import Reading, Response, choose_columns, read_responses
from ctpo.report.positions import Positions
from ctpo.report.reading import ReportError
from ctpo.report.verdict import match, measure, verdict

# Enough for a quantile to three digits; the first so many tokens are taken.
_SAMPLE_TOKENS = 4_000_000
# Responses at a time; of the first chunks, so many blocks are units of the intervals.
_AT_ONCE, _BLOCKS, _CUT_CHUNKS = 256, 64, 4
# Rounding, or noise that somebody put on, leaves some log-probabilities a little above 0.
_ABOVE_ZERO = 0.5


def analyze(
    file: Path | str,
    objective: Objective | None = None,
    *,
    names: Mapping[str, str] | None = None,
    clip_rate: float = 0.05,
    power: float | None = 0.5,
    on_policy: bool = False,
) -> Analysis:
    """Read logged rollouts and say what their ratios do.

    Columns are known by the names of TRL, verl and other engines (`log_rows.COLUMNS`): two of
    log-probs in nats; `mask`, or padding that is null, NaN or 0; `advantages`, of which only the
    sides of clipping are made; `tokens`, by which a repetition penalty shows. A row holds a
    response, or a batch as lists of lists.

    Args:
        file: What `log_files.open_log` reads.
        objective: Whose window to count clips for; None for CTPO's.
        names: What columns are called there, by the names they have here.
        clip_rate: Wanted share of clipped tokens on each side, for the calibration.
        power: Exponent of the calibrated window; None fits it.
        on_policy: The policy has not moved, so that no update explains a difference.

    Raises:
        ReportError: The file is missing or cannot be read, lacks a column, has no rows, a row does
            not fit, or its numbers cannot be log-probs.
        ValueError: The clip rate is not between 0 and 1; or it or the exponent is given, and no
            window is suggested for this objective or for such log-probs.
    """
    if not 0 < clip_rate < 1:
        raise ValueError(f"clip_rate is {clip_rate!r}; it must be between 0 and 1, e.g. 0.05")
    objective = preset("ctpo") if objective is None else objective
    log = open_log(Path(file))
    reading = choose_columns(log, names or {})
    refusal = _refusal(objective, reading)
    if refusal is not None and (clip_rate, power) != (0.05, 0.5):
        raise ValueError(
            f"clip_rate is {clip_rate} and power {power or 'to be fitted'}, but no window is "
            f"suggested: {refusal}"
        )
    statistics, units, kept, tokens = PositionStatistics.zeros(), [], [], 0
    extremes = {name: (math.inf, -math.inf) for name in (reading.new, reading.old)}
    responses = read_responses(log, reading)
    number = 0
    while chunk := list(islice(responses, _AT_ONCE)):
        for name, side in ((reading.new, "new"), (reading.old, "old")):
            values = np.concatenate([getattr(r, side)[r.mask] for r in chunk])
            low, high = extremes[name]
            extremes[name] = (
                min(low, float(values.min(initial=math.inf))),
                max(high, float(values.max(initial=-math.inf))),
            )
        size = -(-len(chunk) // _BLOCKS) if number < _CUT_CHUNKS else len(chunk)
        for start in range(0, len(chunk), size):
            block = _statistics(chunk[start : start + size], objective)
            statistics = statistics + block
            units.append(block.to_columns())
        if tokens < _SAMPLE_TOKENS:
            tokens += sum(len(r.new) for r in chunk)
            kept += chunk
        number += 1
    if not number:
        raise ReportError(f"{file} has no rows")
    if not int(statistics.tokens.sum()):
        raise ReportError(f"{file} has no policy tokens: every mask is 0")
    for name, (low, high) in extremes.items():
        _refuse_other_numbers(f"{file}: {name}", low, high)
    cause = find_cause(kept, on_policy or reading.must_agree)
    has_sides = kept[0].advantages is not None
    columns = _by_unit(units)
    measured = measure(columns)
    said = verdict(measured, cause, objective)
    if {"logprobs", "old_logprobs", "rollout_logprobs"} <= reading.columns.keys():
        generator = replace(reading, new="old_logprobs", old="rollout_logprobs")
        beside = find_cause(list(islice(read_responses(log, generator), len(kept))), True)
        said.insert(1, match(beside, "generator"))
    window: Calibration | str = "new and old log-probs do not match"
    if not cause.is_fault:
        window = refusal or _calibration(kept, clip_rate, power)
    left_out = set() if has_sides else {"clipping"}
    left_out |= {"collapse"} if reading.must_agree else set()
    return Analysis(
        title=_title(statistics, reading),
        positions=Positions(columns),
        measured=measured,
        verdict=[one for one in said if one.about not in left_out],
        has_sides=has_sides,
        cause=cause,
        objective=objective,
        statistics=statistics,
        calibration=None if reading.must_agree else window,
    )


def _title(statistics: PositionStatistics, reading: Reading) -> str:
    new, old = (reading.columns[side] for side in (reading.new, reading.old))
    count, tokens = int(statistics.sequences), int(statistics.tokens.sum())
    beside = ", the trainer's with the generator's" if reading.must_agree else ""
    return f"{count} responses, {tokens} policy tokens: {new} against {old}{beside}"


def _tensors(responses: Sequence[Response]) -> tuple[list[torch.Tensor], ...]:
    """Return logprobs, old_logprobs, advantages and mask as the objective takes them."""
    return (
        [torch.from_numpy(r.new) for r in responses],
        [torch.from_numpy(r.old) for r in responses],
        [
            torch.zeros(len(r.new), dtype=torch.float64)
            if r.advantages is None
            else torch.from_numpy(r.advantages)
            for r in responses
        ],
        [torch.from_numpy(r.mask) for r in responses],
    )


def _statistics(responses: Sequence[Response], objective: Objective) -> PositionStatistics:
    return objective(*_tensors(responses)).statistics


def _by_unit(units: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, np.ndarray]:
    sizes = [len(unit["tokens"]) for unit in units]
    columns = {"batch": np.repeat(np.arange(len(units)), sizes)}
    return columns | {
        name: np.concatenate([np.array(unit[name]) for unit in units]) for name in units[0]
    }


def _refuse_other_numbers(what: str, low: float, high: float) -> None:
    """Raise if numbers cannot be log-probs."""
    if low >= 0 and 0 < high <= 1:
        raise ReportError(
            f"{what} is between {low:.3g} and {high:.3g}: these are probabilities; take their "
            "natural logarithm"
        )
    if high > _ABOVE_ZERO:
        losses = ": these look like losses, -log p; change their sign" if low >= 0 else ""
        raise ReportError(
            f"{what} is {high:.3g} at its largest; a log-probability is at most 0{losses}"
        )


def _refusal(objective: Objective, reading: Reading) -> str | None:
    """Return why no window is suggested, whatever the rows hold."""
    if reading.must_agree:
        return "these are of the same weights, and nothing is clipped"
    cumulative = isinstance(objective.ratio, CumulativeRatio)
    if not cumulative or not isinstance(objective.window, LogWindow):
        return "one is made for the cumulative ratio in a log window only, as of --preset ctpo"
    return None


def _calibration(
    kept: Sequence[Response], clip_rate: float, power: float | None
) -> Calibration | str:
    if kept[0].advantages is None:
        return "it needs advantages of both signs"
    try:
        return calibrate(*_tensors(kept), clip_rate=clip_rate, power=power)
    except ValueError as error:
        return str(error)
