"""Two checkpoints measured from end to end, in small."""

import dataclasses

import pytest
import torch

from ctpo.objective import preset
from ctpo.theory.measured import ESTIMATORS
from ctpo.theory.measured_tables import measured_tables
from ctpo.tir.storage import write_trajectories
from ctpo.training.measuring import runs
from ctpo.training.measuring.files import FileRequest, measure_files
from ctpo.training.measuring.runs import (
    OWN,
    MeasureRequest,
    checkpoints,
    choose_old,
    measure_run,
)
from ctpo.training.recipe.loading import load_recipe
from ctpo.training.run_directory import RunDirectory

SETTINGS = [
    "data.held_out_problems=12",
    "rollout.max_response_tokens=12",
    "optimization.updates_per_batch=4",
]


def checkpoint(run, batch, model, tokenizer):
    path = run.checkpoints / f"checkpoint-{4 * batch}"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "trainer_state.json").write_text("{}")


@pytest.fixture
def run(tmp_path, model, tokenizer):
    """A run whose policy does not move from batch 2 to 3, and does from 3 to 4."""
    run = RunDirectory.create(tmp_path / "run", load_recipe("tiny", SETTINGS))
    checkpoint(run, 2, model, tokenizer)
    checkpoint(run, 3, model, tokenizer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    checkpoint(run, 4, model, tokenizer)
    return run


@pytest.fixture
def rewarded(monkeypatch):
    """What was sampled, rewarded by the first token: an untrained model is never right."""
    real = runs._Lab.sample
    kept = []

    def sample(self, *arguments):
        sampled = real(self, *arguments)
        graded = [
            dataclasses.replace(t, reward=float(t.response_ids[0] % 2))
            for t in sampled.trajectories
        ]
        kept.append(dataclasses.replace(sampled, trajectories=graded))
        return kept[-1]

    monkeypatch.setattr(runs._Lab, "sample", sample)
    return kept


class Heard:
    def __init__(self):
        self.phases = []

    def phase(self, name, total):
        self.phases.append([name, total, 0])

    def progress(self, done, total=None, **numbers):
        self.phases[-1][2] = done


def test_two_checkpoints_are_measured(run, rewarded):
    heard = Heard()
    request = MeasureRequest(
        run.path,
        old=2,
        after=(1, 2),
        prompts=12,
        answers=6,
        baseline_answers=2,
        reference_answers=3,
        objectives={"wider": preset("ctpo", eps_low=0.25, eps_high=0.5, dual_clip=0.5)},
    )
    result = measure_run(request, heard)
    assert result.old == 2
    still, moved = result.distances
    # Every phase says how long it takes and gets there.
    assert all(total == done > 0 for _, total, done in heard.phases)
    # The policy did not move: every ratio is 1, and nothing without a window differs.
    assert still.kl == pytest.approx(0, abs=1e-6)
    plain = [q for q in still.qualities if not q.name.endswith("(preset)")]
    for quality in plain:
        assert quality.variance.value == pytest.approx(plain[0].variance.value, rel=1e-4)
        assert quality.bias_from_full.value == pytest.approx(0, abs=1e-6)
    assert all(size == pytest.approx(1) for size in still.ratio_sizes.values())
    # It did: weights spread, more so over the whole response.
    assert moved.kl > 1e-3
    sizes = moved.ratio_sizes
    assert sizes["full-sequence"] < sizes["cumulative"] < sizes["token"] < 1
    assert [q.name for q in moved.qualities] == [*ESTIMATORS, OWN, "wider"]
    # The run's objective is the preset; a window ten times as wide leaves more tokens their part.
    of = {q.name: q.variance.value for q in moved.qualities}
    assert of[OWN] == of["ctpo (preset)"] < of["wider"]
    assert moved.clipped[OWN] == moved.clipped["ctpo"] > moved.clipped["wider"]
    assert all(q.variance.low <= q.variance.value for q in moved.qualities)
    assert [p.t for p in moved.positions][0] == 1
    names = [table.name for table in measured_tables(result.distances)]
    assert len(names) == len(set(names))


def test_the_same_seed_measures_the_same(run, rewarded):
    request = MeasureRequest(
        run.path, after=(1,), prompts=4, answers=2, baseline_answers=1, reference_answers=1
    )
    first, second = (measure_run(request, Heard()) for _ in range(2))
    assert measured_tables(first.distances) == measured_tables(second.distances)


def test_trajectories_from_a_file_are_measured_like_those_of_a_run(run, rewarded, tmp_path):
    request = MeasureRequest(
        run.path, old=3, after=(1,), prompts=8, answers=8, baseline_answers=1, reference_answers=2
    )
    measured = measure_run(request, Heard())
    answers, _, fresh = rewarded
    old_file, new_file = tmp_path / "old.parquet", tmp_path / "new.parquet"
    for file, sampled in ((old_file, answers), (new_file, fresh)):
        write_trajectories(file, sampled.trajectories, 0)
    old, new = (str(run.checkpoints / f"checkpoint-{4 * batch}") for batch in (3, 4))
    result = measure_files(FileRequest(old, new, old_file, new_file), Heard())
    (distance,), (expected,) = result.distances, measured.distances
    # Only the baselines differ.
    assert distance.kl == pytest.approx(expected.kl, rel=1e-6)
    assert distance.positions == expected.positions
    assert distance.ratio_sizes == pytest.approx(expected.ratio_sizes)
    assert distance.reference_trajectories == expected.reference_trajectories > 0
    alone = measure_files(FileRequest(old, new, old_file), Heard()).distances[0]
    assert alone.norm_square is None and alone.reference_variance is None
    assert [q.variance for q in alone.qualities] == [q.variance for q in distance.qualities]
    measured_tables([alone])


def test_a_file_of_one_problem_is_refused(run, tmp_path):
    path = tmp_path / "some.parquet"
    write_trajectories(path, [], 0)
    with pytest.raises(ValueError, match="graded answers to 0 problems; at least 2 are needed"):
        measure_files(FileRequest("a", "b", path), Heard())


def test_checkpoints_are_found_by_batch(run):
    assert list(checkpoints(run)) == [2, 3, 4]
    unfinished = run.checkpoints / "checkpoint-20"
    unfinished.mkdir()
    assert list(checkpoints(run)) == [2, 3, 4]


@pytest.mark.parametrize(
    ("available", "after", "expected"),
    [(range(1, 25), (1, 2, 4, 8), 8), (range(1, 10), (1, 8), 1), ([2, 4, 6], (2, 4), 2)],
)
def test_the_old_policy_is_taken_near_a_third_where_the_others_exist(
    tmp_path, available, after, expected
):
    assert choose_old(list(available), MeasureRequest(tmp_path, after=after)) == expected


def test_a_missing_checkpoint_is_named_with_those_that_are_there(tmp_path):
    request = MeasureRequest(tmp_path, old=2, after=(1, 5))
    with pytest.raises(ValueError, match=r"no checkpoint after batch 7; .* after 2, 3, 4\."):
        choose_old([2, 3, 4], request)
    with pytest.raises(ValueError, match=r"there are those after 20; .*|after 20\. Train with"):
        choose_old([20], MeasureRequest(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"after": (0,)}, r"after is \(0,\); it must be different numbers"),
        ({"after": (2, 2)}, r"after is \(2, 2\)"),
        ({"prompts": 1}, "prompts is 1; it must be at least 2"),
        ({"answers": 0}, "answers is 0; it must be at least 1"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        MeasureRequest(tmp_path, **arguments)


def test_adapters_are_refused(tmp_path):
    changes = [*SETTINGS, "model.lora.rank=2", "model.tiny=", "warm_start=", "model.path=some"]
    run = RunDirectory.create(tmp_path / "run", load_recipe("tiny", changes))
    with pytest.raises(ValueError, match="trained adapters"):
        measure_run(MeasureRequest(run.path), Heard())
