"""Everything that can be checked without a model: all tables of the exact part."""

from __future__ import annotations

from collections.abc import Callable

from ctpo.theory.bias import (
    DISTANCES,
    identities_table,
    length_mean_table,
    terminal_reward_table,
    token_level_table,
)
from ctpo.theory.drift import drift_table
from ctpo.theory.rational import cancelling_example, rational_check
from ctpo.theory.tables import Table
from ctpo.theory.trade_off import pivot, trade_off_table
from ctpo.theory.variance import ensemble_table, growth_table, limit_table, ratio_table

_SHOWN = (1e-4, *DISTANCES)


def exact_tables(progress: Callable[[int, int], None] = lambda done, total: None) -> list[Table]:
    """Compute every table of the exact part; the same on every call.

    Args:
        progress: Called with how many of how many parts are done.
    """

    def windows(terminal: bool) -> list[Table]:
        whole = trade_off_table(terminal=terminal)
        return [whole, *(pivot(whole, column, _SHOWN) for column in (2, 3, 4))]

    parts: tuple[Callable[[], list[Table]], ...] = (
        lambda: [rational_check()],
        lambda: [cancelling_example()],
        lambda: [token_level_table()],
        lambda: [terminal_reward_table()],
        lambda: [identities_table()],
        lambda: [length_mean_table()],
        lambda: [ratio_table()],
        lambda: [limit_table()],
        lambda: [ensemble_table()],
        lambda: [growth_table()],
        lambda: windows(False),
        lambda: windows(True),
        lambda: [drift_table()],
    )
    tables: list[Table] = []
    for done, part in enumerate(parts):
        progress(done, len(parts))
        tables += part()
    progress(len(parts), len(parts))
    return tables
