"""Rows of a log as responses: columns by the names that trainers give them, padding taken off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ctpo.report.log_files import Log, Row
from ctpo.report.reading import ReportError

# Ours first, then TRL's, verl's and those of other engines.
COLUMNS = {
    "logprobs": ("per_token_logps", "log_prob", "log_probs", "new_logprobs", "new_log_probs"),
    "old_logprobs": (
        "old_per_token_logps",
        *("old_log_probs", "old_log_prob", "prev_logprobs"),
    ),
    "rollout_logprobs": (
        *("sampler_logprobs", "sampling_per_token_logps", "rollout_log_probs"),
        *("generation_logprobs", "infer_logprobs", "sampling_logprobs"),
    ),
    "mask": ("completion_mask", "response_mask", "loss_mask", "action_mask"),
    "tool_mask": (),
    "advantages": ("advantage",),
    "tokens": ("completion_ids", "responses", "response_ids", "token_ids"),
}
_LOGPROBS = ("logprobs", "old_logprobs", "rollout_logprobs")


@dataclass(frozen=True)
class Response:
    """One response; arrays are [T], and log-probs are in nats and 0 where they were not given.

    Attributes:
        new: The later log-probs: the policy's now, or the trainer's beside the generator's.
        old: What they are compared with.
        mask: True on the policy's tokens.
        advantages: None where the log has none.
        tokens: Token ids; None where the log has none.
    """

    new: np.ndarray
    old: np.ndarray
    mask: np.ndarray
    advantages: np.ndarray | None
    tokens: np.ndarray | None


@dataclass(frozen=True)
class Reading:
    """Which columns are read as what.

    Attributes:
        columns: A log's column by our name for it.
        new: Which of ours is the later log-prob.
        old: Which it is compared with.
    """

    columns: Mapping[str, str]
    new: str
    old: str

    @property
    def must_agree(self) -> bool:
        """Whether the two are of the same weights: the trainer's and the generator's."""
        return self.new == "old_logprobs"


def choose_columns(log: Log, names: Mapping[str, str]) -> Reading:
    """Return which columns to read.

    Args:
        log: The log.
        names: Columns of the log by our names, where the user says so; empty for one to leave out.

    Raises:
        ReportError: A name is unknown, there are no two log-probs to compare, or one column is
            meant to be two things.
    """
    if unknown := sorted(set(names) - set(COLUMNS)):
        raise ReportError(
            f"there is no column {', '.join(unknown)} to rename; there are {', '.join(COLUMNS)}"
        )
    columns = dict(names)
    for ours, theirs in COLUMNS.items():
        present = [name for name in (ours, *theirs) if name in log.columns]
        if ours not in columns and present:
            columns[ours] = present[0]
    columns = {ours: theirs for ours, theirs in columns.items() if theirs}
    for ours, column in columns.items():
        if same := [name for name in columns if name != ours and columns[name] == column]:
            raise ReportError(
                f"the column {column} cannot be both {ours} and {same[0]}; say which is meant with "
                f"--column, e.g. --column {same[0]}=NAME"
            )
    missing = [name for name in columns.values() if name not in log.columns]
    given = [name for name in _LOGPROBS if name in columns]
    if missing or len(given) < 2:
        what = f"the column {missing[0]}" if missing else "two columns of log-probs to compare"
        hint = "If some are meant, say so with --column, e.g. --column logprobs=NAME"
        if {"input", "output", "score"} <= set(log.columns):
            hint = (
                "verl's trainer.rollout_data_dir keeps texts and scores only: save the DataProto "
                "of a step (batch.save_to_disk) and convert it with `ctpo verl log`"
            )
        raise ReportError(
            f"{log.path} lacks {what}: it has {', '.join(log.columns) or 'no rows'}. Log-probs are "
            f"known as {'; '.join(', '.join((n, *COLUMNS[n])) for n in _LOGPROBS)}. {hint}"
        )
    if given[0] == "old_logprobs":  # no update, nothing is clipped
        columns.pop("advantages", None)
    return Reading(columns, given[0], given[1])


def read_responses(log: Log, reading: Reading) -> Iterator[Response]:
    """Yield the responses of a log.

    Raises:
        ReportError: A row does not fit; names the row, the column and what would be right.
    """
    columns = {reading.new: "new", reading.old: "old"}
    wanted = {
        ours: theirs
        for ours, theirs in reading.columns.items()
        if ours not in _LOGPROBS or ours in columns
    }
    number = 0
    for row in log.rows(list(dict.fromkeys(wanted.values()))):
        values = {ours: row[theirs] for ours, theirs in wanted.items()}
        for one in _responses(values, reading.new):
            if one[reading.new] != []:
                where = f"{log.path}, row {number}"
                yield _response(one, reading, where, number, str(log.path))
            number += 1


def _responses(values: Row, first: str) -> Iterator[Row]:
    """Cut a batch, [B, T] or [B], into its responses."""
    rows = values[first]
    if not (isinstance(rows, list) and rows and isinstance(rows[0], list)):
        yield values
        return
    for i in range(len(rows)):
        yield {
            name: value[i] if isinstance(value, list) and len(value) == len(rows) else value
            for name, value in values.items()
        }


def _response(values: Row, reading: Reading, where: str, row: int, file: str) -> Response:
    arrays: dict[str, np.ndarray] = {}
    length = None
    for name in (reading.new, reading.old, *(n for n in values if n not in _LOGPROBS)):
        value = values[name]
        if name == "advantages":
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, int | float):
                value = [value] * (length or 0)
        if not isinstance(value, list) or (length is not None and len(value) != length):
            what = f"{len(value)} values" if isinstance(value, list) else f"{value!r:.60}"
            raise ReportError(
                f"{where}: {name} is {what}; it must be "
                + ("a number or " if name == "advantages" else "")
                + "a list of "
                + (f"{length} numbers, like {reading.new}" if length else "numbers, one per token")
                + ("; --column tokens= leaves it out" if name == "tokens" else "")
            )
        length = len(value)
        try:
            arrays[name] = np.array(value, dtype=np.float64)  # null becomes NaN
        except (TypeError, ValueError) as error:
            hint = "; --column tokens= leaves it out" if name == "tokens" else ""
            raise ReportError(
                f"{where}: {name} is not a list of numbers: {error!s:.80}{hint}"
            ) from None
    new, old = arrays[reading.new], arrays[reading.old]
    mask = _mask(arrays, new, old, file, row)
    advantages = arrays.get("advantages")
    for name in [n for n in (reading.new, reading.old, "advantages") if n in arrays]:
        array = arrays[name]
        if (wrong := mask & ~np.isfinite(array)).any():
            at = int(wrong.argmax())
            raise ReportError(
                f"{file}: {name} at row {row}, position {at} is {array[at]}; it must be finite at "
                f"a policy token{_if_shifted(mask, np.isfinite(array))}"
            )
        array[~np.isfinite(array)] = 0.0
    return Response(new, old, mask, advantages, arrays.get("tokens"))


def _mask(
    arrays: Mapping[str, np.ndarray], new: np.ndarray, old: np.ndarray, file: str, row: int
) -> np.ndarray:
    """Return the policy's tokens: those of the mask, or all that is no padding or a tool's."""
    masks = [name for name in ("mask", "tool_mask") if name in arrays]
    for name in masks:
        if (wrong := ~np.isin(arrays[name], (0.0, 1.0))).any():
            at = int(wrong.argmax())
            raise ReportError(
                f"{file}: {name} at row {row}, position {at} is {arrays[name][at]:g}; only 0 and 1 "
                "are allowed"
            )
    written = np.logical_and.reduce([np.full(len(new), True), *(arrays[n] == 1 for n in masks)])
    if "mask" in masks:
        return written
    here, there = np.isfinite(new), np.isfinite(old)
    if (here != there).any():
        at = int((here != there).argmax())
        raise ReportError(
            f"{file}, row {row}: there is no mask, and at position {at} only one of the "
            "two log-probs is a number; where a row is padded both must be null, NaN or 0"
            f"{_if_shifted(here, there)}"
        )
    # Trainers pad with zeros as well: those at either end are no log-probs.
    filled = np.where(here, (new != 0) | (old != 0), False)
    seen = np.maximum.accumulate
    return written & here & seen(filled) & seen(filled[::-1])[::-1]


def _if_shifted(mask: np.ndarray, filled: np.ndarray) -> str:
    """Return a hint if the mask is that of the numbers, a token to one side."""
    for shift, side in ((1, "right"), (-1, "left")):
        moved = np.roll(filled, shift)
        moved[0 if shift == 1 else -1] = False
        if (mask == moved).all():
            return f". The mask looks shifted by one token to the {side} of the log-probs"
    return ""
