"""Logs as people have them: one content in every format and under every name says the same."""

import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from ctpo.cli.app import app
from ctpo.objective import preset
from ctpo.report import ReportError, analyze

TRL = {
    "logprobs": "per_token_logps",
    "old_logprobs": "old_per_token_logps",
    "mask": "completion_mask",
}
VERL = {"logprobs": "log_prob", "old_logprobs": "old_log_probs", "mask": "response_mask"}
WIDTH = 12


def responses(number=24):
    random = np.random.default_rng(0)
    for i in range(number):
        length = int(random.integers(4, WIDTH))
        old = -random.uniform(0.01, 3, length)
        yield {
            "logprobs": (old - random.uniform(0, 0.01, length)).tolist(),
            "old_logprobs": old.tolist(),
            "mask": [1] * length,
            "advantages": float((-1) ** i),
        }


def renamed(names, rows):
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def padded(fill, rows):
    for row in rows:
        room = WIDTH - len(row["mask"])
        fills = {"logprobs": fill, "old_logprobs": fill, "mask": 0}
        yield row | {name: row[name] + [value] * room for name, value in fills.items()}


def without(name, rows):
    return [{key: value for key, value in row.items() if key != name} for row in rows]


def jsonl(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def batch(rows):
    rows = list(rows)
    return {name: [row[name] for row in rows] for name in rows[0]}


def tensors(path, rows):
    torch.save({name: torch.tensor(value) for name, value in batch(rows).items()}, path)
    return path


def directory(path, rows):
    path.mkdir()
    (path / "README.md").write_text("what this is")
    parquet(path / "a.parquet", rows[:9])
    parquet(path / "b.parquet", rows[9:])
    return path


def saved(path, rows):
    datasets.Dataset.from_list(list(rows)).save_to_disk(path)
    return path


WRITERS = {
    "trl's names, JSONL": lambda p, r: jsonl(p / "a.jsonl", renamed(TRL, r)),
    "verl's names, tensors [B, T]": lambda p, r: tensors(p / "a.pt", renamed(VERL, padded(0.0, r))),
    "save_to_disk": lambda p, r: saved(p / "a", renamed(TRL, r)),
    "a directory with a README": lambda p, r: directory(p / "a", r),
    "null under mask 0": lambda p, r: parquet(p / "a.parquet", padded(None, r)),
    "NaN under mask 0": lambda p, r: jsonl(p / "a.jsonl", padded(float("nan"), r)),
    "no mask, null": lambda p, r: jsonl(p / "a.jsonl", without("mask", padded(None, r))),
    "no mask, 0": lambda p, r: tensors(p / "a.pt", without("mask", padded(0.0, r))),
    "a batch a row": lambda p, r: jsonl(p / "a.jsonl", [batch(r[:9]), batch(r[9:])]),
    "a list of batches": lambda p, r: jsonl(p / "a.json", [[batch(r[:9]), batch(r[9:])]]),
    "one advantage in a list": lambda p, r: parquet(
        p / "a.parquet", [row | {"advantages": [row["advantages"]]} for row in r]
    ),
    "a tool's tokens masked beside": lambda p, r: jsonl(
        p / "a.jsonl",
        renamed(
            TRL, [row | {"mask": [1] * WIDTH, "tool_mask": row["mask"]} for row in padded(0, r)]
        ),
    ),
    "a tool's tokens masked, and padding": lambda p, r: jsonl(
        p / "a.jsonl",
        [
            without("mask", [row])[0]
            | {"tool_mask": [1, 0, *row["mask"][1:]]}
            | {name: [row[name][0], -0.5, *row[name][1:]] for name in ("logprobs", "old_logprobs")}
            for row in padded(0, r)
        ],
    ),
    "a column in the first row only": lambda p, r: jsonl(
        p / "a.jsonl", [row | ({"step": 1} if i == 0 else {}) for i, row in enumerate(r)]
    ),
}


@pytest.mark.parametrize("way", WRITERS)
def test_one_content_says_the_same_in_every_form(way, tmp_path):
    rows = list(responses())
    new, old, mask = (
        [torch.tensor(row[name], dtype=torch.float64) for row in rows]
        for name in ("logprobs", "old_logprobs", "mask")
    )
    advantages = torch.tensor([row["advantages"] for row in rows], dtype=torch.float64)
    expected = preset("ctpo")(new, old, advantages, mask).statistics.to_columns()
    analysis = analyze(WRITERS[way](tmp_path, rows))
    assert analysis.statistics is not None and analysis.statistics.sequences == len(rows)
    for name, values in analysis.statistics.to_columns().items():
        assert values == pytest.approx(expected[name], rel=1e-5, abs=1e-6), name


def test_without_advantages_all_but_the_sides_is_said(tmp_path):
    analysis = analyze(jsonl(tmp_path / "a.jsonl", without("advantages", responses())))
    assert "do not match" in analysis.window
    assert {one.about for one in analysis.verdict} == {"match", "drift", "exponent", "collapse"}


def changed(change):
    return [row | change(row) for row in responses()]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            changed(lambda row: {"old_logprobs": np.exp(row["old_logprobs"]).tolist()}),
            "old_logprobs is between .*: these are probabilities; take their natural logarithm",
        ),
        (
            changed(lambda row: {"logprobs": [-x for x in row["logprobs"]]}),
            "logprobs is 2.* at its largest; .* these look like losses",
        ),
        (
            changed(lambda row: {"logprobs": [*row["logprobs"][:-1], None]}),
            "logprobs at row 0, position .* is nan; it must be finite at a policy token",
        ),
        (
            [
                row
                | {"mask": [0, *row["mask"]]}
                | {name: [*row[name], None] for name in ("logprobs", "old_logprobs")}
                for row in responses()
            ],
            "mask looks shifted by one token to the right",
        ),
        *(
            (
                [
                    without(name, [row])[0] if i == lacking else row
                    for i, row in enumerate(responses())
                ],
                f"row {lacking}: {name} is None",
            )
            for name in ("mask", "advantages", "old_logprobs")
            for lacking in (0, 5)
        ),
        ([{}, *responses()], "row 0: logprobs is None"),
        (
            changed(lambda row: {"tokens": "some text that was written " * 9}),
            "tokens is 'some text that was .{40}; it must be .* --column tokens= leaves it out",
        ),
        (
            changed(lambda row: {"tokens": ["some"] * len(row["mask"])}),
            "tokens is not a list of numbers: .* --column tokens= leaves it out",
        ),
        (
            [{"input": "1+1", "output": "2", "score": 1.0}],
            "verl's trainer.rollout_data_dir keeps texts and scores only",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(rows, message, tmp_path):
    with pytest.raises(ReportError, match=message):
        analyze(jsonl(tmp_path / "a.jsonl", rows))


def test_a_column_nobody_needs_can_be_left_out(tmp_path):
    rows = changed(lambda row: {"tokens": "text"})
    without_it = analyze(jsonl(tmp_path / "b.jsonl", without("tokens", rows)))
    analysis = analyze(jsonl(tmp_path / "a.jsonl", rows), names={"tokens": ""})
    assert analysis.to_dict() == without_it.to_dict()


def test_a_place_that_cannot_be_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = jsonl(tmp_path / "a.jsonl", responses())
    (tmp_path / "file").touch()
    for arguments in ([""], [log, "--html", "."], [log, "--out", "file/figures"]):
        shown = ctpo(*arguments)
        assert shown.exit_code in (1, 2) and not isinstance(shown.exception, OSError | ValueError)
        assert "Traceback" not in shown.output


def test_a_column_is_one_thing(tmp_path):
    log = jsonl(tmp_path / "a.jsonl", responses())
    for ours in ("logprobs", "rollout_logprobs", "mask"):
        with pytest.raises(ReportError, match=f"old_logprobs cannot be both .*{ours}"):
            analyze(log, names={ours: "old_logprobs"})
    shown = ctpo(log, "--column", "logprobs=logprobs", "--column", "logprobs=old_logprobs")
    assert shown.exit_code == 1 and "names logprobs twice" in shown.output
    assert "not of the form" in ctpo(log, "--column", "logprobs").output


def test_a_pickle_is_not_read(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"\x80\x04N.")
    with pytest.raises(ReportError, match="ctpo verl log"):
        analyze(tmp_path / "a.pt")
    torch.save({"logprobs": print}, tmp_path / "b.pt")
    with pytest.raises(ReportError, match="could run code"):
        analyze(tmp_path / "b.pt")


def test_the_trainers_log_probs_must_agree_with_the_generators(tmp_path):
    """As in a batch of verl's or a run's trajectories: no update explains a difference."""
    rows = renamed({"logprobs": "old_log_probs", "old_logprobs": "rollout_log_probs"}, responses())
    analysis = analyze(jsonl(tmp_path / "a.jsonl", rows))
    assert analysis.cause is not None and analysis.cause.is_fault and not analysis.agrees
    assert "the trainer's with the generator's" in analysis.title


def ctpo(*arguments):
    return CliRunner().invoke(app, ["analyze", *map(str, arguments)])


def test_the_command_writes_a_page_and_json(tmp_path):
    log = jsonl(tmp_path / "a.jsonl", responses())
    done = ctpo(log, "--json", "--html", tmp_path / "a.html")
    assert done.exit_code == 0, done.output
    (said,) = json.loads(done.stdout)
    power = said["measured"]["power"]
    assert said["cause"]["name"] == "truncated sampling" and set(power) == {"value", "low", "high"}
    page = (tmp_path / "a.html").read_text()
    assert "MISMATCH, likely truncated sampling" in page and page.count("data:image/svg") == 3
    assert "nan" not in ctpo(log).stdout


def test_a_clip_rate_must_be_a_share_and_a_window_is_of_its_method(tmp_path):
    random = np.random.default_rng(1)
    noise = changed(
        lambda row: {"logprobs": [x - 0.04 * random.normal() for x in row["old_logprobs"]]}
    )
    log = jsonl(tmp_path / "a.jsonl", noise)
    assert "clip_rate is 2.0; it must be between 0 and 1" in ctpo(log, "--clip-rate", 2).output
    assert "window       for ctpo (cumulative ratio): eps_low=" in ctpo(log).stdout
    assert "window       none suggested" in ctpo(log, "--preset", "gspo").stdout
    for option in (["--clip-rate", 0.2], ["--fit-power"]):
        shown = ctpo(log, "--preset", "gspo", *option)
        assert shown.exit_code == 1 and "no window is suggested: one is made for" in shown.output


@pytest.mark.parametrize("moved", [2.0, 0.01])
def test_a_collapse_is_seen_by_kl_whatever_is_clipped(moved, tmp_path):
    random = np.random.default_rng(0)
    rows = [
        {
            "old_logprobs": (-old).tolist(),
            "logprobs": np.minimum(random.normal(-moved / 2, 1, 40) * moved - old, 0).tolist(),
        }
        for old in random.uniform(4, 9, (60, 40))
    ]
    verdict = analyze(jsonl(tmp_path / "a.jsonl", rows)).verdict
    (collapse,) = [one for one in verdict if one.about == "collapse"]
    assert collapse.state == ("bad" if moved == 2.0 else "good")
    assert ("COLLAPSE" in collapse.words) == (moved == 2.0)
