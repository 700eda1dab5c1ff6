"""What verl leaves behind, read: steps that count, our names, evaluations with their errors."""

import json
import os
import shutil

import pytest
import torch

from ctpo.evaluation import avg_at_k
from ctpo.report import read_run
from ctpo.tasks import generate, write_verl_parquet
from ctpo.training.recipe.loading import load_recipe
from ctpo.training.run_directory import RunDirectory
from ctpo.training.verl.checkpoints import newest_whole
from ctpo.training.verl.files import FIRST, Start, VerlFiles
from ctpo.training.verl.results import collect, evaluation_of, logged, seconds_by_phase

RECIPE = load_recipe(
    "tiny",
    [
        "engine=verl",
        "optimization.batches=4",
        "evaluation.samples_per_problem=2",
        "rollout.keep_every=2",
    ],
)


@pytest.fixture
def directory(tmp_path):
    made = RunDirectory.create(tmp_path / "run", RECIPE)
    for name in ("rollouts", "validations"):
        (made.path / "verl" / name).mkdir(parents=True)
    return made


@pytest.fixture
def files(directory):
    return VerlFiles(directory.path)


def step(number, **data):
    """A line of verl's log, with what it says of every step."""
    own = {f"critic/{key}": value for key, value in data.items()}
    return {"step": number, "data": {"training/global_step": number, "actor/loss": 0.5} | own}


def write(file, lines, end="\n"):
    file.write_text("\n".join(json.dumps(line) for line in lines) + end)


def test_of_a_step_that_was_done_twice_the_last_time_counts(files):
    write(
        files.metrics(FIRST),
        [step(1, try_=1), step(2, try_=1), step(3, try_=1), step(4, try_=1)],
    )
    write(files.metrics(Start(2, 2)), [step(3, try_=2)])
    assert {n: data["critic/try_"] for n, data in logged(files).items()} == {1: 1, 2: 1, 3: 2}


def test_what_a_later_start_went_back_behind_does_not_count(directory, files):
    write(files.metrics(FIRST), [step(1), step(2), step(3)])
    collect(RECIPE, directory, files, ended=True)
    directory.forget_after(2)
    files.metrics(Start(2, 2)).touch()
    collect(RECIPE, directory, files, ended=False)
    assert [line["batch"] for line in directory.metrics()] == [1, 2]
    write(files.metrics(Start(2, 2)), [step(3, **{"score/mean": 1.0})])
    collect(RECIPE, directory, files, ended=False)
    assert [line["batch"] for line in directory.metrics()] == [1, 2, 3]


def test_a_line_that_is_being_written_is_not_there_yet(files):
    write(files.metrics(FIRST), [step(1), step(2)], end="")
    assert list(logged(files)) == [1]


def test_an_evaluation_alone_is_no_step(files):
    write(files.metrics(FIRST), [{"step": 0, "data": {"val-core/x/acc/mean@2": 1.0}}, step(1)])
    assert list(logged(files)) == [1]


def test_metrics_have_our_names_and_come_once(directory, files):
    data = {
        "training/global_step": 1,
        "actor/loss": 0.25,
        "actor/lr": 1e-6,
        "actor/entropy": float("nan"),
        "actor/ctpo/clip/low": 0.125,
        "ctpo/reward/mean": 0.5,
        "ctpo/tool/tokens_per_response": 10.0,
        "response_length/mean": 30.0,
        "timing_s/gen": 2.0,
        "timing_s/update_actor": 1.0,
        "timing_s/adv": 0.5,
    }
    write(files.metrics(FIRST), [{"step": 1, "data": data}])
    for _ in range(2):
        collect(RECIPE, directory, files, ended=False)
    assert directory.metrics() == [
        {
            "batch": 1,
            "step": 16,
            "loss": 0.25,
            "learning_rate": 1e-6,
            "entropy": None,
            "clip/low": 0.125,
            "reward/mean": 0.5,
            "tool/tokens_per_response": 10.0,
            "response/length": 20.0,
        }
    ]
    phases = seconds_by_phase(files, FIRST)
    assert phases == {"generation": 2.0, "updates": 1.5, "evaluation": 0, "checkpoints": 0}
    assert read_run(directory.path).series("reward/mean")[1].tolist() == [0.5]


def test_of_the_rollouts_every_so_many_th_stays(directory, files):
    write(files.metrics(FIRST), [step(n) for n in (1, 2, 3)])
    for number in (1, 2, 3):
        write(files.rollouts / f"{number}.jsonl", [{"uid": "a_0_0"}])
    collect(RECIPE, directory, files, ended=False)
    # The last may still be being written.
    assert sorted(file.stem for file in files.rollouts.iterdir()) == ["2", "3"]
    collect(RECIPE, directory, files, ended=True)
    assert sorted(file.stem for file in files.rollouts.iterdir()) == ["2"]


def answers(*outcomes, problem="p", source="s"):
    return [{"problem": problem, "source": source, "outcome": outcome} for outcome in outcomes]


ROWS = [
    *answers("right", "wrong", problem="1", source="a"),
    *answers("right", "could-not-tell", problem="2", source="a"),
    *answers("wrong", "wrong", problem="1", source="b"),
]


def test_an_evaluation_is_what_our_own_would_say_of_the_answers():
    found = evaluation_of(ROWS[::-1])
    assert found.samples_per_problem == 2
    assert found.overall == avg_at_k([[0.0, 1.0], [None, 1.0], [0.0, 0.0]])
    assert found.by_source == {
        "a": avg_at_k([[0.0, 1.0], [None, 1.0]]),
        "b": avg_at_k([[0.0, 0.0]]),
    }
    assert found.overall.unknown == 1


def test_evaluations_are_named_by_their_batch_and_wait_until_they_are_whole(directory, files):
    write_verl_parquet(files.held_out, generate(3, seed=0, split="held-out"))
    for batch in (0, 2, 4):
        write(files.validations / f"{batch}.jsonl", ROWS if batch < 4 else ROWS[:3])
    collect(RECIPE, directory, files, ended=False)
    assert read_run_names(directory) == ["batch-0002.json", "start.json"]
    write(files.validations / "4.jsonl", ROWS)
    collect(RECIPE, directory, files, ended=False)
    assert read_run_names(directory) == ["batch-0002.json", "final.json", "start.json"]


def test_an_evaluation_that_was_cut_off_is_none_however_verl_ended(directory, files):
    write_verl_parquet(files.held_out, generate(3, seed=0, split="held-out"))
    write(files.validations / "0.jsonl", ROWS[:1])
    collect(RECIPE, directory, files, ended=False)
    assert read_run_names(directory) == []
    # verl can lose answers; where it has ended by itself, what is there is all there will be.
    collect(RECIPE, directory, files, ended=True)
    assert read_run_names(directory) == ["start.json"]


def read_run_names(directory):
    return sorted(file.name for file in (directory.path / "evaluations").iterdir())


def test_problems_without_a_name_are_refused():
    with pytest.raises(ValueError, match="extra_info.id, which `ctpo data` writes"):
        evaluation_of(answers("right", problem=""))


def write_checkpoint(files, step):
    actor = files.run / "checkpoints" / f"global_step_{step}" / "actor"
    actor.mkdir(parents=True)
    for file in (actor / "model_world_size_1_rank_0.pt", actor.parent / "data.pt"):
        torch.save({"weights": torch.zeros(64)}, file)
    files.newest.write_text(str(step))
    return actor.parent


@pytest.mark.parametrize("name", ["actor/model_world_size_1_rank_0.pt", "data.pt", "actor", "."])
def test_a_damaged_checkpoint_is_named_and_verl_told_to_take_the_newest_whole_one(
    files, caplog, name
):
    one, two, three = (write_checkpoint(files, step) for step in (1, 2, 3))
    assert newest_whole(files) == three and not caplog.text
    for damaged, left, said in ((three, two, "global_step_2"), (two, one, "global_step_1")):
        place = damaged / name
        if place.is_file():
            os.truncate(place, place.stat().st_size - 1)
        else:
            shutil.rmtree(place)
        assert newest_whole(files) == left == files.last_checkpoint()
        assert f"{damaged.name}: " in caplog.text and f"The run goes on from {said};" in caplog.text
        assert not damaged.exists()
    shutil.rmtree(one)
    assert newest_whole(files) is None and files.last_checkpoint() is None
    assert "The run goes on from the beginning" in caplog.text


def test_a_kill_while_verl_says_which_checkpoint_is_its_newest_loses_none(files):
    _, two = (write_checkpoint(files, step) for step in (1, 2))
    files.newest.write_text("")
    assert newest_whole(files) == two == files.last_checkpoint()


def test_the_newest_checkpoint_is_the_one_verl_says(files):
    assert files.last_checkpoint() is None
    place = files.run / "checkpoints"
    (place / "latest_checkpointed_iteration.txt").write_text("12\n")
    assert files.last_checkpoint() == place / "global_step_12"
