"""The small study as a user runs it: killed, changed, failing, in parts, on a cluster."""

import json
import shutil
import signal
import time

import psutil
import pyarrow.parquet as pq
import pytest

from ctpo.studies.results import read_results
from ctpo.studies.study import load_study

CELLS = [f"test_{method}_seed={seed}" for method in ("ctpo", "grpo") for seed in (0, 1)]


def results(directory):
    """What each cell's run wrote, but for times."""
    names = ("metrics.jsonl", "evaluations/start.json", "evaluations/final.json")
    return {
        cell.name: [(cell / "run" / name).read_text() for name in names]
        for cell in sorted((directory / "cells").iterdir())
    }


@pytest.mark.slow
def test_every_cell_is_an_ordinary_finished_run(whole):
    assert sorted(results(whole)) == CELLS
    for cell in (whole / "cells").iterdir():
        assert (cell / "run" / "model" / "config.json").is_file()
        told = json.loads((cell / "cell.json").read_text())
        assert told["warm_start"] and told["study"]
    assert len(list((whole / "warm-starts").iterdir())) == 1  # shared by all


@pytest.mark.slow
def test_results_survive_parquet(whole, tmp_path, ctpo):
    ctpo("report", whole)
    runs = read_results(whole / "results.parquet")
    assert len(runs) == 4 and not any(one.failed for one in runs)
    assert {(r["evaluation"], r["batch"]) for one in runs for r in one.rows} == {
        ("start", 0),
        ("final", 1),
    }
    assert len({one.warm_start for one in runs}) == 1
    table = pq.read_table(whole / "results.parquet").to_pylist()
    assert all(
        row["torch"] and row["digest"] and row["updates"] == 2 * row["batch"] for row in table
    )


@pytest.mark.slow
def test_done_cells_are_left_as_they_are(whole, ctpo):
    before = {p: p.stat().st_mtime_ns for p in (whole / "cells").rglob("*") if p.is_file()}
    ctpo("run", "small.toml", "--output", "whole")
    assert before == {p: p.stat().st_mtime_ns for p in (whole / "cells").rglob("*") if p.is_file()}


@pytest.mark.long
def test_a_study_killed_midway_comes_to_the_same_results(whole, home, command, ctpo):
    killed = home / "killed"
    shutil.copytree(whole, killed)
    for cell in CELLS[::2]:
        shutil.rmtree(killed / "cells" / cell)
    process = command("run", "small.toml", "--output", "killed", "--jobs", "2")
    # One of the two has begun in earnest: there is something half done to take up.
    while not any(
        (killed / "cells" / c / "run/evaluations/start.json").exists() for c in CELLS[::2]
    ):
        assert process.poll() is None, "it ended before"
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(children)  # nobody goes on writing: this would never end
    assert not all((killed / "cells" / cell / "run" / "model").exists() for cell in CELLS)
    ctpo("run", "small.toml", "--output", "killed")
    assert results(killed) == results(whole)


@pytest.mark.long
def test_a_run_directory_that_was_half_made_is_made_again(whole, home, ctpo):
    half = home / "half"
    shutil.copytree(whole, half)
    cell = half / "cells" / CELLS[0]
    shutil.rmtree(cell / "run")
    (cell / "run.unfinished").mkdir()
    ctpo("run", "small.toml", "--output", "half")
    assert results(half) == results(whole)


@pytest.mark.long
def test_another_content_is_refused_unless_it_is_said(whole, home, small, ctpo):
    (home / "changed.toml").write_text(small.replace("seeds = [0, 1]", "seeds = [1]"))
    shown = ctpo("run", "changed.toml", "--output", "whole", expect=1)
    assert "begun with another content" in shown and "--accept-changes" in shown
    shutil.copytree(whole, home / "accepted")
    ctpo("run", "changed.toml", "--output", "accepted", "--accept-changes")
    assert results(home / "accepted") == results(whole)
    # A change that the runs that are there were not made with is never glossed over.
    other = small.replace('"optimization.batches=1"', '"optimization.batches=2"')
    (home / "other.toml").write_text(other)
    shown = ctpo("run", "other.toml", "--output", "accepted", "--accept-changes", expect=1)
    assert "was run by another recipe" in shown


@pytest.mark.long
def test_a_failed_cell_is_recorded_once_and_tried_again_if_asked(home, small, ctpo):
    broken = small.replace('"tiny"', '"base.toml"').replace("seeds = [0, 1]", "seeds = [0]")
    (home / "base.toml").write_text(
        'parent = "tiny"\n[data]\ntrain = "problems.jsonl"\nhard_fraction = 0.0\n'
    )
    (home / "broken.toml").write_text(broken)
    shown = ctpo("run", "broken.toml", "--output", "broken")
    assert shown.count("failed") >= 2
    cell = home / "broken" / "cells" / "test_ctpo_seed=0"
    assert "problems.jsonl" in json.loads((cell / "failed.json").read_text())["error"]
    log = (cell / "log.txt").read_bytes()
    ctpo("run", "broken.toml", "--output", "broken")
    assert (cell / "log.txt").read_bytes() == log
    ctpo("run", "broken.toml", "--output", "broken", "--retry-failed")
    assert len((cell / "log.txt").read_bytes()) > len(log)
    assert "no run of the test" in ctpo("report", "broken", expect=1)


@pytest.mark.long
def test_a_warm_start_that_fails_is_tried_once_and_not_by_every_cell(home, small, ctpo):
    hopeless = small.replace("target_accuracy=0.0", "target_accuracy=0.9")
    (home / "hopeless.toml").write_text(
        hopeless.replace('"warm_start.check_every=30"', '"warm_start.max_steps=30"')
    )
    ctpo("run", "hopeless.toml", "--output", "hopeless")
    (log,) = (home / "hopeless").glob("warm-starts/*/log.txt")
    assert log.read_text().count("Traceback") == 1
    for cell in CELLS:
        failed = json.loads((home / "hopeless" / "cells" / cell / "failed.json").read_text())
        assert "its warm start failed: WarmStartFailed" in failed["error"]


@pytest.mark.long
def test_shards_share_the_cells_out(home, small, ctpo):
    (home / "parts.toml").write_text(small)
    listed = [ctpo("run", "parts.toml", "--dry-run", "--shard", f"{i}/3") for i in (1, 2, 3)]
    cells = [[line for line in text.splitlines() if "_seed=" in line] for text in listed]
    assert sorted(sum(cells, [])) == CELLS and max(map(len, cells)) == 2
    assert not (home / "runs").exists()  # a dry run leaves nothing
    assert "not a part" in ctpo("run", "parts.toml", "--shard", "4/3", expect=2)


@pytest.mark.slow
def test_the_page_says_what_is_missing(whole, home, ctpo):
    shutil.copytree(whole, home / "partly")
    shutil.rmtree(home / "partly" / "cells" / CELLS[0])
    ctpo("report", "partly")
    page = (home / "partly" / "report.html").read_text()
    assert "3 of 4 runs of the test are done" in page and "not the study's result yet" in page
    assert load_study(home / "partly" / "study.toml").question in page
    assert page.count("data:image/svg+xml") == 3


@pytest.mark.slow
def test_a_report_compares_with_the_method_that_is_named(whole, ctpo):
    for reference, other in (("ctpo", "grpo"), ("grpo", "ctpo")):
        ctpo("report", whole, "--reference", reference)
        shown = (whole / "tables.md").read_text()
        assert f"| {other} − {reference} |" in shown and f"| {reference} − {other} |" not in shown
    assert "reference is 'grp'" in ctpo("report", whole, "--reference", "grp", expect=1)


@pytest.mark.long
def test_on_a_ray_cluster_the_results_are_the_same(whole, home, ctpo):
    pytest.importorskip("ray")
    ctpo("run", "small.toml", "--output", "on-ray", "--ray", "local")
    assert results(home / "on-ray") == results(whole)
