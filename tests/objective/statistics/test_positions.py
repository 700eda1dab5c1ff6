"""Statistics by position: equal to loops, mergeable, and read as documented."""

import math
import statistics
from typing import Literal

import pytest
import torch

from ctpo.objective import PRESETS, ClippedSurrogate, Objective, PositionStatistics, fixed, preset
from ctpo.objective.statistics import histogram
from ctpo.objective.statistics.bins import BINS, bin_of, upper_edges

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
    "weight_sum",
    "weight_sumsq",
    "positive_tokens",
    "negative_tokens",
    "clipped_high",
    "clipped_high_negative",
    "clipped_low",
    "clipped_low_positive",
    "clipped_dual",
]
FLOATS = ("log_rho", "log_r_", "weight")


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
        assert bin_of(torch.tensor([low, high], dtype=torch.float32)).tolist() == [index, index]
    assert bin_of(torch.tensor([[2**20 + 1, 2**24]])).tolist() == [[BINS - 1, BINS - 1]]


def test_no_position_is_between_bins():
    positions = torch.arange(1, 5000)
    edges = torch.tensor([high for _, high in edges_by_hand()])
    assert torch.equal(bin_of(positions), torch.searchsorted(edges, positions))


@pytest.mark.parametrize("way", ["columns", "behind a hole", "packed"])
def test_a_long_sequence_fills_bins_up_to_2_to_the_20(way):
    length = 2**20 + 5
    before = int(way == "behind a hole")
    values = torch.full((1, before + length), -1.0)
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[:, :before] = False
    edges = None
    if way == "packed":
        values, mask, edges = values[0], mask[0], torch.tensor([0, length])
    log_r = 1e-3 * (torch.arange(before + length) % 2).expand_as(values)
    out = preset("grpo")(values + log_r, values, torch.ones(1), mask, cu_seqlens=edges)
    columns = out.statistics.to_columns()
    expected = [high - low + 1 for low, high in edges_by_hand()]
    expected[-1] += 5
    assert columns["tokens"] == columns["positive_tokens"] == expected
    assert columns["position_low"][64] == 65
    assert columns["position_high"][-1] == 2**20
    assert columns["log_r_sum"][-1] == pytest.approx(1e-3 * expected[-1] / 2, rel=1e-3)
    assert columns["log_r_max"][-1] == pytest.approx(1e-3, rel=1e-3)
    assert columns["log_r_min"][-1] == 0.0
    assert columns["log_rho_max"][-1] == pytest.approx(1e-3 * length / 2, rel=1e-2)


def sides(name, t, length, log_r, log_w, log_rho, moved, advantage):
    """Above and below its window, for the sign of its advantage, by the papers' formulas."""
    w, root = math.exp(log_w), math.sqrt(t)
    if name in ("cispo", "minpro"):
        return w > 5.0, False
    if name == "topr":
        return w > 1 and advantage < 0, False
    if name in ("sapo", "vespo"):
        return False, False
    statistic, low, high, dual = log_w, -0.025 * root, 0.05 * root, 0.05 * root
    if name == "ctpo-printed":
        dual = math.inf
    elif name == "ctpo-fixed":
        low, high, dual = math.log(0.5), math.log(5), math.log(5)
    elif name == "ctpo-drift-free":
        statistic = moved
    elif name == "ctpo-exact-kl":
        statistic = math.copysign(math.sqrt(w - 1 - log_w), log_w)
        low, high = -0.025 * math.sqrt(t / 2), 0.05 * math.sqrt(t / 2)
        dual = high
    elif name == "pnpo":
        low, high, dual = -0.025 / root, 0.05 / root, 0.05 / root
    elif name == "full-sequence":
        low, high = -0.025 * math.sqrt(length), 0.05 * math.sqrt(length)
        dual = high
    elif name in ("grpo", "dr-grpo", "dapo"):
        low, high = math.log(0.8), math.log(1.28 if name == "dapo" else 1.2)
        dual = math.inf
    elif name in ("gspo", "gspo-token"):
        low, high, dual = math.log(1 - 3e-4), math.log(1 + 4e-4), math.inf
    elif name == "gmpo":
        statistic, low, high, dual = log_r, -0.4, 0.4, math.inf
    upper = high if advantage > 0 else dual if advantage < 0 else math.inf
    return statistic > upper, advantage < 0 and statistic < low


def cppo_sides(logprobs, old, advantage):
    """The same for a row of CPPO, whose budget is spent along the way."""
    length, spent, earned, result = len(logprobs), 0.0, 0.0, []
    for t, (new, before) in enumerate(zip(logprobs, old, strict=True), start=1):
        fall = (length - t + 1) / length
        cost = fall * abs(math.exp(new) - math.exp(before))
        over = cost > min(0.15, 0.15 + 0.02 * earned - spent)
        result.append(
            (over and advantage > 0 and new > before, over and advantage < 0 and new < before)
        )
        spent, earned = spent + cost, earned + fall
    return result


def log_weights(name, log_r):
    """log w of each token of a row."""
    rho = [sum(log_r[: t + 1]) for t in range(len(log_r))]
    if name in ("grpo", "dapo", "dr-grpo", "cispo", "sapo", "cppo"):
        return log_r
    if name in ("gspo", "gspo-token", "gmpo"):
        return [rho[-1] / len(rho)] * len(rho)
    if name in ("full-sequence", "topr", "vespo"):
        return [rho[-1]] * len(rho)
    if name == "minpro":
        return [x + (min(log_r[:t]) if t else 0.0) for t, x in enumerate(log_r)]
    if name == "pnpo":
        return [x / (t + 1) for t, x in enumerate(rho)]
    return rho


WITH_DUAL = {"ctpo", "ctpo-fixed", "ctpo-drift-free", "ctpo-exact-kl", "pnpo", "full-sequence"}

# At 90 tokens a row, products are larger and means smaller than over ten.
SCALES = {"gspo": 0.01, "gspo-token": 0.01, "ctpo-fixed": 0.3, "minpro": 1.0, "cppo": 0.5}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("holes", [0.3, 0.0])
@pytest.mark.parametrize("name", PRESETS)
def test_columns_equal_loops(name, holes, left, make_batch, scale_of):
    """log ρ is cumulative under every objective. Without holes or padding on the left, columns are
    summed first; both ways give the same."""
    scale = SCALES.get(name, scale_of(name))
    logprobs, old_logprobs, _, mask = make_batch(
        14, 130, scale=scale, holes=holes, dtype=torch.float64
    )
    lengths = torch.arange(14) * 10
    if holes == 0:
        mask = torch.arange(130)[None, :] < lengths[:, None]
        if left:
            mask = mask.flip(1)
    elif left:
        mask = mask & (torch.arange(130)[None, :] >= 130 - lengths[:, None])
    advantages = torch.tensor([1.0, -1.0, 0.0, 2.0, -2.0, 0.5, -0.5] * 2, dtype=torch.float64)
    out = preset(name)(logprobs, old_logprobs, advantages, mask)

    edges = edges_by_hand()
    tokens: dict[tuple[int, int], list] = {}
    per_sequence, k3 = [], 0.0
    for b in range(14):
        places = mask[b].nonzero().flatten().tolist()
        new, old = logprobs[b].tolist(), old_logprobs[b].tolist()
        log_r = [new[i] - old[i] for i in places]
        if not log_r:
            continue
        log_w = log_weights(name, log_r)
        cppo = cppo_sides([new[i] for i in places], [old[i] for i in places], advantages[b])
        log_rho = moved = 0.0
        for t, (x, w) in enumerate(zip(log_r, log_w, strict=True), start=1):
            log_rho, moved = log_rho + x, moved + math.exp(x) - 1
            k3 += math.exp(x) - 1 - x
            advantage = advantages[b].item()
            above, below = sides(name, t, len(log_r), x, w, log_rho, moved, advantage)
            if name == "cppo":
                above, below = cppo[t - 1]
            low_high = next(edge for edge in edges if edge[0] <= t <= edge[1])
            entry = (log_rho, x, math.exp(w), advantage, above, below)
            tokens.setdefault(low_high, []).append(entry)
        per_sequence.append(log_rho)

    dual = isinstance(PRESETS[name].surrogate, ClippedSurrogate)
    expected: dict[str, list] = {column: [] for column in COLUMNS}
    for (low, high), entries in sorted(tokens.items()):
        rhos, rs, ws = ([e[i] for e in entries] for i in range(3))
        values = [low, high, len(entries)]
        values += [sum(rhos), sum(x * x for x in rhos), min(rhos), max(rhos)]
        values += [sum(rs), sum(x * x for x in rs), min(rs), max(rs)]
        values += [sum(ws), sum(x * x for x in ws)]
        values += [sum(e[3] > 0 for e in entries), sum(e[3] < 0 for e in entries)]
        above = [e[3] for e in entries if e[4]]
        below = [e[3] for e in entries if e[5]]
        negative = sum(a < 0 for a in above)
        values += [len(above) - negative * dual, negative * (not dual)]
        values += [len(below), sum(a > 0 for a in below), negative * dual]
        for column, value in zip(COLUMNS, values, strict=True):
            expected[column].append(value)

    columns = out.statistics.to_columns()
    assert list(columns) == COLUMNS
    for column in COLUMNS:
        kind = float if column.startswith(FLOATS) else int
        assert all(type(x) is kind for x in columns[column]), column
        assert columns[column] == pytest.approx(expected[column], rel=1e-9, abs=1e-11), column
    some = {column: sum(columns[column]) > 0 for column in COLUMNS if column.startswith("clipped")}
    assert some == {
        "clipped_high": name not in ("sapo", "vespo"),
        "clipped_high_negative": name in ("cispo", "minpro", "topr"),
        "clipped_low": name not in ("sapo", "vespo", "cispo", "minpro", "topr"),
        "clipped_low_positive": False,
        "clipped_dual": name in WITH_DUAL,
    }

    s = out.statistics
    assert (s.sequences.item(), s.k3_sum.item()) == pytest.approx((len(per_sequence), k3))
    assert s.sequence_log_ratio_sum.item() == pytest.approx(sum(per_sequence), abs=1e-11)
    squares = sum(x * x for x in per_sequence)
    assert s.sequence_log_ratio_sumsq.item() == pytest.approx(squares)
    assert s.sequence_log_ratio_min.item() == pytest.approx(min(per_sequence))
    assert s.sequence_log_ratio_max.item() == pytest.approx(max(per_sequence))


@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("name", PRESETS)
def test_float32_is_good_enough_for_statistics(name, holes, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(
        40, 300, scale=scale_of(name) / 5, holes=holes
    )
    single = vars(preset(name)(logprobs, old_logprobs, advantages, mask).statistics)
    double = vars(
        preset(name)(logprobs.double(), old_logprobs.double(), advantages.double(), mask).statistics
    )
    for field, values in double.items():
        assert single[field].dtype == values.dtype
        if values.dtype == torch.float64:
            torch.testing.assert_close(single[field], values, rtol=1e-4, atol=1e-4, msg=field)


def test_a_window_that_holds_for_both_signs_counts_them_apart():
    """CISPO with a lower bound: a weight below it counts whatever the advantage."""
    objective = Objective(ratio="token", surrogate="cispo", window=fixed(0.5, 1.0))
    log_r = torch.tensor([[1.0, -1.0, 0.0]] * 3, dtype=torch.float64)
    out = objective(log_r, torch.zeros(3, 3), torch.tensor([1.0, -1.0, 0.0]), torch.ones(3, 3))
    columns = out.statistics.to_columns()
    assert columns["clipped_high"] == [3, 0, 0]
    assert columns["clipped_high_negative"] == [1, 0, 0]
    assert columns["clipped_low"] == [0, 3, 0]
    assert columns["clipped_low_positive"] == [0, 1, 0]
    assert columns["clipped_dual"] == [0, 0, 0]


def test_per_sequence_estimates_of_kl_by_hand():
    log_r = torch.tensor([[0.1, -0.2, 9.0], [0.3, 0.0, 0.0], [9.0, 9.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    out = preset("grpo")(log_r, torch.zeros(3, 3), torch.ones(3), mask)
    sequences = out.sequences()
    assert sequences.lengths.tolist() == [2, 3, 0]
    assert sequences.log_ratio.tolist() == pytest.approx([-0.1, 0.3, 0.0])
    assert sequences.k1.tolist() == pytest.approx([0.1, -0.3, 0.0])
    # e^.1 - 1 - .1 = .0051709, e^-.2 - 1 + .2 = .0187308, e^.3 - 1 - .3 = .0498588.
    assert sequences.k3.tolist() == pytest.approx([0.0239017, 0.0498588, 0.0], abs=1e-7)
    summary = out.statistics.summary()
    assert summary["kl/k1"] == pytest.approx((0.1 - 0.3) / 2)
    assert summary["kl/k3"] == pytest.approx((0.0239017 + 0.0498588) / 2, abs=1e-7)


def test_k1_and_k3_estimate_the_divergence_that_enumeration_gives():
    """Both are unbiased under π_old: over all tokens by their probability they give KL."""
    old = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    new = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
    out = preset("grpo")(new.log()[:, None], old.log()[:, None], torch.ones(3), torch.ones(3, 1))
    divergence = (old * (old.log() - new.log())).sum()
    sequences = out.sequences()
    torch.testing.assert_close((old * sequences.k1).sum(), divergence)
    torch.testing.assert_close((old * sequences.k3).sum(), divergence)
    assert (sequences.k3 >= 0).all()


def test_effective_sample_size_by_hand():
    weights = torch.tensor([[1.0, 1.0, 4.0]], dtype=torch.float64)
    objective = Objective(ratio="token", surrogate="plain")
    out = objective(weights.log(), torch.zeros(1, 3), torch.ones(1), torch.ones(1, 3))
    assert out.statistics.summary()["ess"] == pytest.approx(6**2 / (3 * 18))


@pytest.mark.parametrize("name", PRESETS)
def test_micro_batches_merge_into_the_whole(name, make_batch, scale_of):
    inputs = make_batch(9, 100, scale=scale_of(name), dtype=torch.float64)
    whole = preset(name)(*inputs).statistics
    parts = [
        preset(name)(*(x[rows] for x in inputs)).statistics
        for rows in (slice(0, 2), slice(2, 3), slice(3, 9))
    ]
    for order in ([0, 1, 2], [2, 0, 1]):
        merged = sum((parts[i] for i in order), PositionStatistics.zeros())
        for field, values in vars(whole).items():
            torch.testing.assert_close(
                getattr(merged, field), values, rtol=1e-11, atol=1e-12, msg=field
            )
        assert merged.summary() == pytest.approx(whole.summary(), rel=1e-9, abs=1e-12)
        assert merged.quantiles([0.1, 0.5]) == whole.quantiles([0.1, 0.5])
        assert merged.spread_fit() == pytest.approx(whole.spread_fit(), rel=1e-9)


def test_zeros_is_neutral_and_has_no_rows(make_batch):
    zeros = PositionStatistics.zeros("cpu")
    assert zeros.to_columns() == {column: [] for column in COLUMNS}
    assert all(math.isnan(value) for value in zeros.summary().values())
    assert math.isnan(zeros.spread_fit())
    some = preset("ctpo")(*make_batch(2, 5)).statistics
    for other in (zeros + some, some + zeros):
        for field, values in vars(some).items():
            assert torch.equal(getattr(other, field), values), field
            assert getattr(other, field).dtype == values.dtype, field


@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_size_does_not_depend_on_the_batch(holes, make_batch):
    shapes = []
    for rows, columns in ((1, 1), (8, 200)):
        collected = preset("ctpo")(*make_batch(rows, columns, holes=holes)).statistics
        shapes.append({name: (x.shape, x.dtype) for name, x in vars(collected).items()})
    assert shapes[0] == shapes[1]
    zeros = vars(PositionStatistics.zeros())
    assert shapes[0] == {name: (x.shape, x.dtype) for name, x in zeros.items()}


def test_summary_by_hand():
    # log ρ = .04, .06, .09 and -.03, -.01, .19: clipped are one high, one low and one dual.
    log_ratios = torch.tensor([[0.04, 0.02, 0.03], [-0.03, 0.02, 0.2]], dtype=torch.float64)
    advantages = torch.tensor([1.0, -1.0])
    out = preset("ctpo")(log_ratios, torch.zeros(2, 3), advantages, torch.ones(2, 3))
    log_rhos = [0.04, 0.06, 0.09, -0.03, -0.01, 0.19]
    weights = [math.exp(x) for x in log_rhos]
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
            # log ρ_H = .09 and .19.
            "kl/k1": -0.28 / 2,
            "kl/k3": sum(math.exp(x) - 1 - x for x in log_ratios.flatten().tolist()) / 2,
            "ess": sum(weights) ** 2 / (6 * sum(x * x for x in weights)),
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


def values_of(kind, n=20_000):
    generator = torch.Generator().manual_seed(6)
    normal = torch.randn(n, generator=generator, dtype=torch.float64)
    if kind == "normal":
        return 0.05 * normal
    if kind == "drifting":
        return 0.02 * normal - 0.3
    if kind == "heavy":
        return 1e-3 * normal * (3 * torch.rand(n, generator=generator, dtype=torch.float64)).exp()
    return torch.where(normal > 0, 0.3, -0.01) * normal.abs()


@pytest.mark.parametrize("kind", ["normal", "drifting", "heavy", "skewed"])
def test_quantiles_are_those_of_the_values_to_four_percent(kind):
    values = values_of(kind)
    shares = [0.001, 0.01, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 0.99, 0.999]
    n = len(values)
    out = preset("grpo")(values[:, None], torch.zeros(n, 1), torch.ones(n), torch.ones(n, 1))
    exact = torch.quantile(values, torch.tensor(shares, dtype=torch.float64)).tolist()
    assert out.statistics.quantiles(shares, of="log_r") == pytest.approx(exact, rel=0.04)
    # At H = 1 the two are the same.
    assert out.statistics.quantiles(shares) == out.statistics.quantiles(shares, of="log_r")


def test_quantiles_of_log_rho_are_of_the_cumulative_sum(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(60, 80, scale=0.04)
    out = preset("grpo")(logprobs, old_logprobs, advantages, mask)
    log_r = torch.where(mask, logprobs.detach() - old_logprobs, 0.0)
    shares = [0.05, 0.3, 0.7, 0.95]
    of: Literal["log_r", "log_rho"]
    for of, values in (("log_r", log_r), ("log_rho", log_r.cumsum(dim=1))):
        exact = torch.quantile(values[mask], torch.tensor(shares)).tolist()
        assert out.statistics.quantiles(shares, of=of) == pytest.approx(exact, rel=0.04), of


def sketch(values):
    column = torch.tensor(values)[:, None]
    ones = torch.ones_like(column)
    return preset("grpo")(column, 0 * ones, ones[:, 0], ones).statistics.log_r_sketch


def test_the_sketch_takes_every_magnitude():
    values = [0.0, -0.0, 1e-9, -1e-9, 1e-30, 300.0, -1e9, math.inf, -math.inf, 2.0**-20, -2.0]
    counts = sketch(values)
    assert counts.sum() == len(values)
    assert counts[histogram.SIDE] == 5
    assert counts[-1] == 2 and counts[0] == 2


@pytest.mark.parametrize("value", [1.5e-6, -3e-4, 0.02, 0.7, -1.0, 1.0, 2.0, 200.0])
def test_one_value_is_found_again(value):
    counts = sketch([value]).tolist()
    for share in (0.0, 0.5, 1.0):
        assert histogram.quantiles(counts, [share]) == pytest.approx([value], rel=0.07)


def test_the_sketch_orders_values():
    """Quantiles at the ends are the extremes, whatever the sign."""
    values = [-3.0, -0.5, -1e-4, 0.0, 2e-3, 0.4]
    counts = sketch(values).tolist()
    found = histogram.quantiles(counts, [(i + 0.5) / 6 for i in range(6)])
    assert found == pytest.approx(values, rel=0.04)


def test_quantiles_of_nothing_and_outside_raise(make_batch):
    nothing = PositionStatistics.zeros()
    assert all(map(math.isnan, nothing.quantiles([0.5, 0.9])))
    some = preset("ctpo")(*make_batch(2, 5)).statistics
    with pytest.raises(ValueError, match=r"a quantile is a share between 0 and 1, not 1\.5"):
        some.quantiles([0.5, 1.5])
    with pytest.raises(ValueError, match="unknown quantity 'rho'; did you mean 'log_rho'"):
        some.quantiles([0.5], of="rho")  # type: ignore[arg-type]


def test_masked_tokens_are_in_no_sketch(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 30)
    statistics = preset("ctpo")(logprobs, old_logprobs, advantages, mask).statistics
    assert statistics.log_r_sketch.sum() == statistics.log_rho_sketch.sum() == mask.sum()
