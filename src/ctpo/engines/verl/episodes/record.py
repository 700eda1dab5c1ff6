"""What is known of an episode beyond its tokens, as it travels through verl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctpo.grading import boxes
from ctpo.grading.box import LongBoxError, UnclosedBoxError
from ctpo.tir import Trajectory
from ctpo.tir.programs import Outcome
from ctpo.tir.protocols import ToolProtocol

# Of `AgentLoopOutput.extra_fields`, and so of the reward function's `extra_info`.
RECORD = "episode"


def episode_record(
    trajectory: Trajectory, outcomes: Sequence[Outcome], protocol: ToolProtocol
) -> dict[str, Any]:
    """Return plain data about a finished episode.

    Returns:
        `assistant_text`, the policy's own words, which are what is graded; `finish_reason`;
        `void_turns`, the policy's turns with neither a call nor a box; and of the programs what
        `program_record` says.
    """
    said = [turn.text for turn in trajectory.turns if turn.role == "assistant"]
    return {
        "assistant_text": trajectory.assistant_text,
        "finish_reason": trajectory.finish_reason,
        "turns": len(said),
        "void_turns": sum(is_void(text, protocol) for text in said),
        "tool_tokens": trajectory.mask.count(False),
        **program_record(outcomes),
    }


def program_record(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the programs' `statuses`, seconds and failures of the sandbox itself."""
    return {
        "statuses": [outcome.status for outcome in outcomes],
        "failures": [o.failure or "" for o in outcomes if o.status == "sandbox-failure"],
        "own_seconds": sum(outcome.own_seconds for outcome in outcomes),
        "queue_seconds": sum(outcome.queue_seconds for outcome in outcomes),
    }


def is_void(text: str, protocol: ToolProtocol) -> bool:
    """Whether a turn of the policy holds neither a whole call nor a whole box."""
    if protocol.find_call(text) is not None:
        return False
    try:
        found = boxes(text)
    except UnclosedBoxError:
        return True
    except LongBoxError:
        return False
    return found is None or not found.answer
