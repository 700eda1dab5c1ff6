"""Statistics by position: equal to loops, mergeable, and read as documented."""

import math
import statistics

import pytest
import torch

from ctpo.objective import PRESETS, PositionStatistics, preset
from ctpo.objective.position_bins import BINS, bin_of, upper_edges

COLUMNS = [
    "position_low",
    "position_high",
    "tokens",
    "log_rho_sum",
    "log_rho_sumsq",
    "log_rho_min",
    "log_rho_max",
    "log_r_sum",
    "log_r_sumsq",
    "log_r_min",
    "log_r_max",
    "positive_tokens",
    "negative_tokens",
    "clipped_high",
    "clipped_low",
    "clipped_dual",
]
INTEGERS = {name for name in COLUMNS if not name.startswith("log_")}


def edges_by_hand():
    """Pairs (first, last) from the documentation."""
    bins = [(t, t) for t in range(1, 65)]
    start, width = 65, 8
    while start <= 2**20:
        bins += [(start + i * width, start + (i + 1) * width - 1) for i in range(8)]
        start, width = start + 8 * width, width * 2
    return bins


def test_edges_are_the_documented_ones():
    bins = edges_by_hand()
    assert upper_edges().tolist() == [high for _, high in bins]
    assert len(bins) == BINS
    assert bins[-1][1] == 2**20
    assert (65, 72) in bins and (121, 128) in bins and (129, 144) in bins


def test_every_position_is_in_its_bin():
    for index, (low, high) in enumerate(edges_by_hand()):
        assert bin_of(torch.tensor([[low, high]])).tolist() == [[index, index]]
    assert bin_of(torch.tensor([[2**20 + 1, 2**30]])).tolist() == [[BINS - 1, BINS - 1]]


@pytest.mark.parametrize("name", PRESETS)
def test_columns_equal_loops(name, make_batch):
    """log ρ is cumulative under every objective; clips follow the objective's own gradient."""
    scale = 0.01 if name == "gspo" else 0.15
    logprobs, old_logprobs, _, mask = make_batch(21, 130, scale=scale, dtype=torch.float64)
    advantages = torch.tensor([1.0, -1.0, 0.0, 2.0, -2.0, 0.5, -0.5] * 3, dtype=torch.float64)
    out = preset(name)(logprobs, old_logprobs, advantages, mask)
    (slope,) = torch.autograd.grad(out.per_token.sum(), logprobs)

    tokens: dict[tuple[int, int], list] = {}
    for b in range(21):
        t, log_rho = 0, 0.0
        for place in range(130):
            if not mask[b, place]:
                continue
            t += 1
            log_r = (logprobs[b, place] - old_logprobs[b, place]).item()
            log_rho += log_r
            clipped = advantages[b] != 0 and slope[b, place] == 0
            low_high = next(edge for edge in edges_by_hand() if edge[0] <= t <= edge[1])
            above = out.weights[b, place] > 1
            tokens.setdefault(low_high, []).append(
                (log_rho, log_r, advantages[b].item(), clipped, above)
            )
    expected: dict[str, list] = {column: [] for column in COLUMNS}
    for (low, high), entries in sorted(tokens.items()):
        rhos, rs = [e[0] for e in entries], [e[1] for e in entries]
        values = [low, high, len(entries)]
        values += [sum(rhos), sum(x * x for x in rhos), min(rhos), max(rhos)]
        values += [sum(rs), sum(x * x for x in rs), min(rs), max(rs)]
        values += [sum(e[2] > 0 for e in entries), sum(e[2] < 0 for e in entries)]
        values += [sum(bool(e[3] and e[2] > 0) for e in entries)]
        values += [sum(bool(e[3] and e[2] < 0 and not e[4]) for e in entries)]
        values += [sum(bool(e[3] and e[2] < 0 and e[4]) for e in entries)]
        for column, value in zip(COLUMNS, values, strict=True):
            expected[column].append(value)

    columns = out.statistics.to_columns()
    assert list(columns) == COLUMNS
    for column in COLUMNS:
        kind = int if column in INTEGERS else float
        assert all(type(x) is kind for x in columns[column])
        assert columns[column] == pytest.approx(expected[column], rel=1e-9, abs=1e-12), column
    assert sum(columns["clipped_high"]) > 0
    assert sum(columns["clipped_low"]) > 0
    assert (sum(columns["clipped_dual"]) > 0) == (name in ("ctpo", "full-sequence"))


def test_micro_batches_merge_into_the_whole(make_batch):
    inputs = make_batch(9, 100, dtype=torch.float64)
    whole = preset("ctpo")(*inputs).statistics.to_columns()
    parts = [
        preset("ctpo")(*(x[rows] for x in inputs)).statistics
        for rows in (slice(0, 2), slice(2, 3), slice(3, 9))
    ]
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = sum((parts[i] for i in order), PositionStatistics.zeros()).to_columns()
        for column, values in whole.items():
            assert merged[column] == pytest.approx(values, rel=1e-12, abs=1e-13), column


def test_zeros_is_neutral_and_has_no_rows(make_batch):
    zeros = PositionStatistics.zeros("cpu")
    assert zeros.to_columns() == {column: [] for column in COLUMNS}
    assert all(math.isnan(value) for value in zeros.summary().values())
    assert math.isnan(zeros.spread_fit())
    some = preset("ctpo")(*make_batch(2, 5)).statistics
    assert (zeros + some).to_columns() == some.to_columns() == (some + zeros).to_columns()


def test_size_does_not_depend_on_the_batch(make_batch):
    for rows, columns in ((1, 1), (8, 200)):
        collected = preset("ctpo")(*make_batch(rows, columns)).statistics
        assert {tensor.shape for tensor in vars(collected).values()} == {(BINS,)}


def test_summary_by_hand():
    # log ρ = .04, .06, .09 and -.03, -.01, .19: clipped are one high, one low and one dual.
    log_ratios = torch.tensor([[0.04, 0.02, 0.03], [-0.03, 0.02, 0.2]], dtype=torch.float64)
    advantages = torch.tensor([1.0, -1.0])
    out = preset("ctpo")(log_ratios, torch.zeros(2, 3), advantages, torch.ones(2, 3))
    log_rhos = [0.04, 0.06, 0.09, -0.03, -0.01, 0.19]
    assert out.statistics.summary() == pytest.approx(
        {
            "clip/high": 1 / 6,
            "clip/low": 1 / 6,
            "clip/dual": 1 / 6,
            "log_ratio/mean": 0.28 / 6,
            "log_ratio/std": statistics.stdev(log_ratios.flatten().tolist()),
            "log_rho/mean": 0.34 / 6,
            "log_rho/std": statistics.stdev(log_rhos),
            "log_rho/min": -0.03,
            "log_rho/max": 0.19,
        }
    )


def test_summary_tells_high_from_low():
    out = preset("ctpo-printed")(
        torch.tensor([[0.5, 0.0, 0.0]]), torch.zeros(1, 3), torch.ones(1), torch.tensor([[1, 1, 1]])
    )
    shares = out.statistics.summary()
    assert (shares["clip/high"], shares["clip/low"], shares["clip/dual"]) == (1, 0, 0)


def test_spread_fit_by_hand():
    # Two tokens at t = 1 with standard deviation √.5·.2, two at t = 4 with √.5·.6, and a single one
    # at t = 5, which has no spread.
    log_ratios = torch.tensor([[0.1, 0, 0, 0.2, 9.0], [-0.1, 0, 0, -0.2, 9.0]], dtype=torch.float64)
    mask = torch.ones(2, 5)
    mask[1, 4] = 0
    out = preset("ctpo")(log_ratios, torch.zeros(2, 5), torch.ones(2), mask)
    root = math.sqrt(0.5)
    spreads = {1: 0.2 * root, 2: 0.2 * root, 3: 0.2 * root, 4: 0.6 * root}
    above = sum(2 * s * math.sqrt(t) for t, s in spreads.items())
    below = sum(2 * t for t in spreads)
    assert out.statistics.spread_fit() == pytest.approx(above / below, rel=1e-12)


def test_spread_fit_places_a_wide_bin_at_its_middle():
    # At t = 65 and 66, in the bin 65..72, log ρ is .1 in one row and -.1 in the other.
    log_ratios = torch.zeros(2, 66, dtype=torch.float64)
    log_ratios[0, 64], log_ratios[1, 64] = 0.1, -0.1
    out = preset("ctpo")(log_ratios, torch.zeros(2, 66), torch.ones(2), torch.ones(2, 66))
    above = 4 * math.sqrt(4 * 0.01 / 3) * math.sqrt(68.5)
    below = 2 * sum(range(1, 65)) + 4 * 68.5
    assert out.statistics.spread_fit() == pytest.approx(above / below, rel=1e-12)


def test_spread_fit_recovers_the_sigma_of_independent_ratios(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(400, 300, scale=0.036, holes=0.2)
    fit = preset("ctpo")(logprobs, old_logprobs, advantages, mask).statistics.spread_fit()
    assert fit == pytest.approx(0.036, rel=0.05)


def test_sums_survive_a_large_common_shift():
    """In float32 a spread of 1e-3 around 50 is lost in the sum of squares."""
    spread = torch.linspace(-1e-3, 1e-3, 1001, dtype=torch.float64)[:, None]
    out = preset("ctpo")(spread + 50, torch.zeros(1001, 1), torch.ones(1001), torch.ones(1001, 1))
    expected = statistics.stdev(spread.flatten().tolist())
    assert out.statistics.summary()["log_rho/std"] == pytest.approx(expected, rel=1e-5)


def test_statistics_can_be_skipped(make_batch):
    inputs = make_batch(2, 3)
    out = preset("ctpo")(*inputs, statistics=False)
    assert torch.equal(out.per_token, preset("ctpo")(*inputs).per_token)
    with pytest.raises(RuntimeError, match="statistics=False"):
        _ = out.statistics
