import asyncio
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed (it has no release for Python 3.13)")

from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo.metric_utils import process_validation_metrics
from verl.trainer.ppo.reward import load_reward_manager

from ctpo.engines.verl.reward import UNGRADED, compute_score


def record(text=None, statuses=(), failures=()):
    made = {"statuses": list(statuses), "failures": list(failures)}
    return made if text is None else {**made, "assistant_text": text}


def score(text, gold, **extra_info):
    return compute_score("any", text, gold, extra_info or None)


@pytest.mark.parametrize(
    ("text", "gold", "outcome", "number", "acc"),
    [
        ("so \\boxed{42}", "42", "right", 1.0, 1.0),
        ("so \\boxed{41}", "42", "wrong", 0.0, 0.0),
        ("no idea", "42", "wrong", 0.0, 0.0),
        ("\\boxed{\\frac{1}{2}}", "0.5", "right", 1.0, 1.0),
        ("\\boxed{42}", "", "could-not-tell", UNGRADED, None),
        ("\\boxed{" + "x" * 5000 + "}", "42", "could-not-tell", UNGRADED, None),
    ],
)
def test_three_outcomes_are_kept_apart(text, gold, outcome, number, acc):
    found = score(text, gold)
    assert (found["outcome"], found["score"], found["acc"]) == (outcome, number, acc)
    assert found["graded"] == (acc is not None)
    assert found["reason"]


def test_a_box_that_a_tool_prints_is_no_answer():
    """It stands in the text that verl hands over, and not in the policy's own."""
    whole = "```python\nprint(answer)\n```\n```output\n\\boxed{42}\n```\nThe end."
    own = "```python\nprint(answer)\n```The end."
    assert score(whole, "42")["outcome"] == "right", "which is why it must not be graded"
    found = score(whole, "42", episode=record(own, ["success"]), num_turns=4)
    assert (found["outcome"], found["reason"]) == ("wrong", "no box")


def test_the_policys_own_box_counts_whatever_a_tool_prints():
    whole = "a\n```output\n\\boxed{1}\n```\n\\boxed{42}"
    assert score(whole, "42", episode=record("a\\boxed{42}", ["success"]))["outcome"] == "right"


def test_an_answer_whose_program_the_sandbox_lost_is_not_graded():
    episode = record("\\boxed{42}", ["success", "sandbox-failure"], ["gone"])
    found = score("\\boxed{42}", "42", episode=episode)
    assert (found["outcome"], found["score"]) == ("could-not-tell", UNGRADED)
    assert "gone" in found["reason"]


QWEN = "I call.<tool_call>…</tool_call>\nuser\n<tool_response>\n{}\n</tool_response>\nassistant\n{}"


@pytest.mark.parametrize(
    ("printed", "said", "outcome"),
    [
        ("\\boxed{42}", "done", "wrong"),
        ("1", "\\boxed{42}", "right"),
        ("\\boxed{1}", "\\boxed{42}", "right"),
        ("<tool_response>\\boxed{42}", "done", "wrong"),
    ],
)
def test_of_verls_own_loop_only_what_stands_outside_the_tools_tags_is_graded(
    printed, said, outcome
):
    text = QWEN.format(printed, said)
    assert score(text, "42", num_turns=4)["outcome"] == outcome
    assert score(text, "42", episode=record(None, ["success"]), num_turns=4)["outcome"] == outcome


def test_where_the_tools_words_cannot_be_told_apart_nobody_can_tell():
    text = "call\nipython\n\\boxed{42}\nassistant\nok"
    for extra in ({"num_turns": 4}, {"episode": record(None, ["success"]), "num_turns": 4}):
        found = score(text, "42", **extra)
        assert (found["outcome"], found["graded"]) == ("could-not-tell", 0.0)


def test_one_question_with_one_answer_needs_no_agent_loop_of_ours():
    assert score("\\boxed{42}", "42", num_turns=2)["outcome"] == "right"
    assert score("\\boxed{42}", "42")["outcome"] == "right"


def test_a_right_answer_that_is_a_number_in_the_data_is_taken_as_text():
    assert score("\\boxed{42}", 42)["outcome"] == "right"


ANSWERS = [(f"\\boxed{{\\sqrt{{{n * n * 2}}}}}", f"{n}\\sqrt{{2}}") for n in range(2, 10)]


def graded(pair):
    return compute_score("any", *pair)["outcome"]


def test_formulas_are_compared_from_threads():
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(graded, ANSWERS)) == ["right"] * len(ANSWERS)


def test_formulas_are_compared_from_processes():
    with get_context("spawn").Pool(2) as processes:
        found = processes.starmap(compute_score, [("any", *pair) for pair in ANSWERS[:4]])
    assert [f["outcome"] for f in found] == ["right"] * 4


def test_verls_reward_manager_loads_and_calls_it(tokenizer):
    """As its reward workers do, from the path and the name in the configuration."""
    config = OmegaConf.create(
        {
            "reward": {
                "reward_manager": {"source": "register", "name": "naive"},
                "custom_reward_function": {
                    "path": "pkg://ctpo.engines.verl.reward",
                    "name": "compute_score",
                    "reward_kwargs": {"timeout": 3.0},
                },
            }
        }
    )

    async def grade(text, episode):
        manager = load_reward_manager(config, tokenizer)
        ids = torch.tensor([tokenizer.encode(text)])
        data = DataProto.from_dict(
            tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
            non_tensors={
                "data_source": np.array(["s"], dtype=object),
                "reward_model": np.array([{"ground_truth": "42"}], dtype=object),
                "extra_info": np.array([{"index": 3}], dtype=object),
                "tool_extra_fields": np.array([{"episode": episode}], dtype=object),
                "__num_turns__": np.array([4]),
            },
        )
        return await manager.run_single(data)

    whole = "a\n```output\n\\boxed{42}\n```\nb"
    found = asyncio.run(grade(whole, record("ab", ["success"])))
    assert (found["reward_score"], found["reward_extra_info"]["outcome"]) == (0.0, "wrong")
    found = asyncio.run(grade(whole, record("ab", ["sandbox-failure"], ["gone"])))
    assert found["reward_score"] == UNGRADED
    assert found["reward_extra_info"]["graded"] == 0.0


def test_verls_validation_keeps_ungraded_answers_out_of_acc_success_only():
    infos = [score("\\boxed{42}", "42"), score("\\boxed{1}", "42"), score("\\boxed{1}", "")]
    columns = {name: [info[name] for info in infos] for name in infos[0]}
    found = process_validation_metrics(
        ["aime"] * 3, ["p"] * 3, columns, expected_acc_counts={("aime", "p"): 3}
    )["aime"]
    assert found["acc_success_only"]["mean@2"] == 0.5
    assert found["acc"]["mean@3"] == pytest.approx(1 / 3)
    assert found["graded"]["mean@3"] == pytest.approx(2 / 3)
    assert found["score"]["mean@3"] == pytest.approx(1 / 3)
    assert "outcome" not in found
