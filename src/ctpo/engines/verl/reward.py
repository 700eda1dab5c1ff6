r"""verl's reward function: `ctpo.grading` on the policy's own words, three outcomes kept apart.

A score says right (1) or wrong (0). An answer that nobody can grade gets `UNGRADED`, a number that
no reward is, because a number is all that verl's trainer hands to an advantage estimator.
`ctpo_group` knows it and leaves the answer out. To everyone else it is as good as 0: verl's own
means of the score count such an answer as wrong, and its `grpo` trains on it as a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ctpo.engines.verl.episodes.record import RECORD
from ctpo.grading import Verdict, grade
from ctpo.grading.verdict import DEFAULT_TIMEOUT

# Exact in float32 and bfloat16, exact when zeros are added to it, and lost in any sum that shows.
UNGRADED = 2.0**-100

# What chat templates put around a tool's answer; see `ctpo.engines.verl.tool`.
_TOOL_SPAN = re.compile(r"<tool_response>.*?(?:</tool_response>|\Z)", re.DOTALL)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: Mapping[str, Any] | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    reward_router_address: str | None = None,
    reward_model_tokenizer: object = None,
) -> dict[str, Any]:
    r"""Grade an answer; for `reward.custom_reward_function`. Never raises, never hangs.

    Any number of threads and processes may call this.

    Args:
        data_source: Name of the problem's source, handed on.
        solution_str: The whole response as text, the tool's included. Not used where the agent loop
            `ctpo` handed over the policy's own words.
        ground_truth: The right answer.
        extra_info: The problem's, with the agent loop's `episode` if there is one.
        timeout: Processor seconds that comparing two formulas may take.
        reward_router_address: verl's, not used.
        reward_model_tokenizer: verl's, not used.

    Returns:
        `score` (1, 0 or `UNGRADED`); `acc` (1, 0 or None, which verl's validation keeps out of
        `acc_success_only` and counts as 0 in `acc`); `graded` (1 or 0); `outcome` (`right`,
        `wrong`, `could-not-tell`), its `reason`, and what stood in the box, `answer`; and of the
        problem its `source` and its identifier, `problem`, empty if it has none.
    """
    golds = (extra_info or {}).get("answers")
    golds = [str(ground_truth)] if golds is None else [str(gold) for gold in golds]
    verdict = _verdict(solution_str, golds, extra_info or {}, timeout)
    score = verdict.score
    return {
        "score": UNGRADED if score is None else score,
        "acc": score,
        "graded": float(score is not None),
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "answer": verdict.extracted or "",
        "source": data_source,
        "problem": str((extra_info or {}).get("id") or ""),
    }


def _verdict(text: str, gold: list[str], extra_info: Mapping[str, Any], timeout: float) -> Verdict:
    record = extra_info.get(RECORD)
    if record is not None and record["failures"]:
        reason = f"the sandbox failed: {record['failures'][-1]}"
        return Verdict("could-not-tell", None, "none", reason)
    if record is not None and "assistant_text" in record:
        return grade(record["assistant_text"], gold, timeout=timeout)
    # Another agent loop ran, and its tools' words stand among the policy's.
    own, spans = _TOOL_SPAN.subn("", text)
    turns = extra_info.get("num_turns")
    told_apart = spans >= len(record["statuses"]) if record is not None else bool(spans)
    if record is None and (turns is None or int(turns) <= 2):
        told_apart = True  # one question, one answer: nobody else spoke
    if not told_apart:
        return Verdict(
            "could-not-tell", None, "none", "the tool's words cannot be told from the policy's"
        )
    return grade(own, gold, timeout=timeout)
