"""Write problems as verl reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ctpo.disk import check_parquet_name, write_whole
from ctpo.tasks.problem import Problem


def write_verl_parquet(path: Path, problems: Sequence[Problem], agent: str = "ctpo") -> None:
    """Write problems to a Parquet file in verl's schema, whole or not at all.

    A row has `prompt` (the messages), `data_source`, `ability`, `reward_model` (`ground_truth` and
    `style`), `agent_name`, and `extra_info` with `index`, `id`, `split` and perhaps `answers`.
    `read_problems` reads it back as it was, but for the level and the operands of built-in ones.

    Args:
        path: The file, which ends in `.parquet`; what is there is replaced.
        problems: The problems, each with an identifier of its own.
        agent: Name of the agent loop that answers them in verl.

    Raises:
        ValueError: The file ends otherwise, there are no problems, or two have the same identifier.
    """
    import pyarrow
    import pyarrow.parquet

    check_parquet_name(path)
    if not problems:
        raise ValueError(f"{path}: there are no problems to write")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise ValueError(f"{path}: two problems have the id {problem.id!r}")
        seen.add(problem.id)
    rows = [_row(problem, index, agent) for index, problem in enumerate(problems)]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    write_whole(path, lambda aside: pyarrow.parquet.write_table(table, aside))


def _row(problem: Problem, index: int, agent: str) -> dict[str, object]:
    several = {"answers": list(problem.golds)} if problem.also else {}
    return {
        "id": problem.id,
        "data_source": problem.source,
        "prompt": [dict(message) for message in problem.messages],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "agent_name": agent,
        "extra_info": {"index": index, "id": problem.id, "split": problem.split, **several},
    }
