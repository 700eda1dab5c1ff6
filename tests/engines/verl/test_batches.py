import pytest

pytest.importorskip("verl", reason="verl is not installed (it has no release for Python 3.13)")

from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from ctpo.engines.verl import plugin  # noqa: F401 - as verl loads it
from ctpo.engines.verl.batches import answer_metrics, check_sandbox, watched
from ctpo.engines.verl.reward import UNGRADED
from ctpo.tir import SandboxFailure


def answer(statuses=(), *, graded=1.0, score=0.0, finish="answered", void=0, failure="gone"):
    return {
        "episode": {
            "assistant_text": "x",
            "finish_reason": finish,
            "turns": 1,
            "void_turns": void,
            "tool_tokens": 10 * len(statuses),
            "statuses": list(statuses),
            "failures": [failure for status in statuses if status == "sandbox-failure"],
            "own_seconds": 0.5 * len(statuses),
            "queue_seconds": 0.1 * len(statuses),
        },
        "reward_extra_info": {"graded": graded, "score": score},
    }


ANSWERS = [
    answer(["success"], score=1.0),
    answer(["error", "timeout", "success"], void=2),
    answer(graded=0.0, score=UNGRADED, finish="length"),
    answer(["success"], score=1.0),
    answer(score=1.0, void=1, finish="calls"),
]
GROUPS = ["a", "a", "a", "b", "b"]


def test_metrics_are_means_over_what_they_say():
    assert answer_metrics(ANSWERS, GROUPS) == pytest.approx(
        {
            "reward/mean": 3 / 4,  # of the graded
            "reward/unknown": 1 / 5,
            "reward/zero_std_groups": 1 / 2,
            "tool/calls_per_response": 5 / 5,
            "tool/error_rate": 2 / 5,
            "tool/timeout_rate": 1 / 5,
            "tool/failure_rate": 0.0,
            "tool/own_seconds": 0.5,
            "tool/queue_seconds": 0.1,
            "response/answered": 3 / 5,
            "response/void": 2 / 5,
            "tool/tokens_per_response": 10.0,
        }
    )


def test_what_is_not_known_is_left_out():
    """Another agent loop, another reward function, a batch without a program."""
    assert answer_metrics([{}, {"reward_extra_info": {"acc": 1.0}}], ["a", "a"]) == {}
    assert "tool/error_rate" not in answer_metrics([answer()], ["a"])
    ungraded = answer_metrics([answer(graded=0.0, score=UNGRADED)], ["a"])
    assert ungraded["reward/unknown"] == 1.0 and "reward/mean" not in ungraded
    stock = {"episode": {"statuses": ["success"], "failures": [], "own_seconds": 1.0}}
    stock["episode"]["queue_seconds"] = 0.0
    assert "response/answered" not in answer_metrics([stock], ["a"])


def test_a_sandbox_that_fails_too_often_stops_the_run():
    lost = answer(["sandbox-failure"])
    with pytest.raises(SandboxFailure, match="3 of 23 programs failed twice.*0.1.*gone"):
        check_sandbox([answer(["success"])] * 20 + [lost] * 3, most=0.1)
    check_sandbox([answer(["success"])] * 20 + [lost] * 3, most=0.2)
    check_sandbox([lost] * 2, most=0.0)  # an accident
    check_sandbox([{}], most=0.0)


def test_verls_buffers_are_watched_in_every_mode():
    for buffer in (ReplayBuffer, ReplayBufferAsync):
        assert buffer.sample._ctpo_wrapped


@pytest.mark.verl
def test_verls_own_trainer_gets_the_metrics_and_the_error_from_the_queue():
    """The answers lie in a real TransferQueue, as verl's agent loop worker puts them there."""
    import ray
    import transfer_queue
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    from tests.ray_here import start

    start(num_cpus=8)
    try:
        transfer_queue.init()

        def put(answers, partition):
            outputs = [
                AgentLoopOutput(
                    prompt_ids=[1],
                    response_ids=[2, 3],
                    response_mask=[1, 1],
                    metrics=AgentLoopMetrics(),
                    reward_score=a["reward_extra_info"]["score"],
                    extra_fields=a,
                )
                for a in answers
            ]
            keys = [f"{group}_{i}_0" for i, group in enumerate(GROUPS[: len(answers)])]
            transfer_queue.kv_batch_put(
                keys=keys,
                partition_id=partition,
                fields=list_of_dict_to_tensordict([o.as_dict() for o in outputs]),
                tags=[{"status": "success", "global_steps": 1}] * len(keys),
            )
            prompt = {"is_prompt": True, "status": "finished", "global_steps": 1}
            transfer_queue.kv_batch_put(
                keys=["a", "b"], partition_id=partition, tags=[prompt, prompt]
            )

        buffer = ReplayBuffer(
            trainer_mode="sync",
            trainer_config={},
            max_off_policy_threshold=None,
            max_off_policy_strategy="drop",
            sampler_kwargs={},
        )
        put(ANSWERS, "train")
        batch, metrics = buffer.sample(global_steps=1, partition_id="train", batch_size=2)
        assert len(batch.keys) == 5
        expected = answer_metrics(ANSWERS, GROUPS) | {"rollout/failed_groups": 0}
        assert metrics == pytest.approx({f"ctpo/{k}": v for k, v in expected.items()})
        # Where verl replaces lost answers, its own metric is all that is left of them.
        buffer.failure_keys["train"].add("lost")
        replaced = {"training/rollout_failure/evicted_samples": 2}
        _, metrics = watched(lambda *_: (batch, replaced))(buffer, 1, "train", 2)
        assert metrics["ctpo/rollout/failed_groups"] == 1 + 2
        # Answers of other loops and rewards are none of our business.
        put([{"reward_extra_info": {"score": 1.0, "acc": 1.0}}] * 5, "others")
        _, metrics = buffer.sample(global_steps=1, partition_id="others", batch_size=2)
        assert not [name for name in metrics if name.startswith("ctpo/")]
        put([answer(["sandbox-failure"])] * 5, "val")
        with pytest.raises(SandboxFailure, match="5 of 5"):
            buffer.sample(global_steps=1, partition_id="val", batch_size=2)
    finally:
        ray.shutdown()
