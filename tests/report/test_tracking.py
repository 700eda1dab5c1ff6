"""What a run writes goes on to trackers once, by batch, whoever wrote it and however often."""

import json

import pytest

from ctpo.report import tracking
from ctpo.report.tracking import Tracking, check_trackers


class Kept:
    def __init__(self, run, name, config):
        self.rows, self.images, self.closed = [], [], False
        KEPT.append(self)

    def log(self, values, step):
        self.rows.append((step, values))

    def image(self, name, pixels, step):
        self.images.append((name, pixels.shape[2], str(pixels.dtype), step))

    def close(self):
        self.closed = True


KEPT: list[Kept] = []


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    monkeypatch.setitem(tracking._TRACKERS, "json", Kept)
    KEPT.clear()


def write(run, *batches):
    with (run / "metrics.jsonl").open("a") as file:
        for batch in batches:
            row = {"batch": batch, "step": 4 * batch, "loss": batch / 2, "tool/error_rate": None}
            file.write(json.dumps(row) + "\n")


def test_each_batch_is_sent_once_and_a_resumed_run_goes_on(tmp_path):
    write(tmp_path, 1)
    with Tracking(tmp_path, ["json"], "name", {}) as sending:
        sending.update()
        write(tmp_path, 2)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"batch": 3')  # being written
            file.flush()
            sending.update()
            assert KEPT[0].rows == [(2, {"loss": 1.0})]
            file.write(', "loss": 9}\n')
    assert KEPT[0].rows == [(2, {"loss": 1.0}), (3, {"loss": 9.0})] and KEPT[0].closed


def test_without_trackers_nothing_is_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with Tracking(tmp_path, [], "name", {}) as sending:
        (tmp_path / "metrics.jsonl").write_text("not JSON\n")
        sending.update()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["tensorbord"], "must be one of tensorboard"),
        (["json", "no"], "report_to is 'no'"),
    ],
)
def test_what_is_not_there_is_told(names, words):
    with pytest.raises(ValueError, match=words):
        check_trackers(names)


@pytest.mark.slow
def test_wandb_keeps_a_run_on_disk_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for batch in (1, 2):  # the second time goes on with the same run
        with Tracking(tmp_path, ["wandb"], "name", {"seed": 0}):
            write(tmp_path, batch)
    name = (tmp_path / "wandb_id.txt").read_text()
    assert {p.suffix for p in tmp_path.glob(f"wandb/offline-run-*/run-{name}.*")} == {".wandb"}
