import dataclasses

import pyarrow.parquet as pq
import pytest

from ctpo.tasks import Problem, generate, read_problems, write_verl_parquet


def problem(name="p", system=None):
    messages = [{"role": "user", "content": "Find 2 + 2.\n\nΩ “quoted”"}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return Problem(id=name, messages=tuple(messages), answer="4", source="mine", split="test")


def test_what_is_written_is_read_back_as_it_was(tmp_path):
    problems = [problem("a"), problem("b", system="Use the tool.")]
    problems.append(dataclasses.replace(problem("c"), also=("four", "2^2")))
    write_verl_parquet(tmp_path / "deep" / "x.parquet", problems)
    assert read_problems(tmp_path / "deep" / "x.parquet") == problems


def test_built_in_problems_keep_all_but_what_they_are_made_of(tmp_path):
    problems = generate(14, seed=0, split="held-out")
    write_verl_parquet(tmp_path / "x.parquet", problems)
    expected = [dataclasses.replace(p, level=0, operands=()) for p in problems]
    assert read_problems(tmp_path / "x.parquet") == expected


def test_a_row_is_in_verls_schema(tmp_path):
    write_verl_parquet(tmp_path / "x.parquet", [problem("a"), problem("b")], agent="other")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist()[1] == {
        "id": "b",
        "data_source": "mine",
        "prompt": [{"role": "user", "content": "Find 2 + 2.\n\nΩ “quoted”"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "agent_name": "other",
        "extra_info": {"index": 1, "id": "b", "split": "test"},
    }


def test_what_cannot_be_told_apart_is_refused(tmp_path):
    with pytest.raises(ValueError, match="two problems have the id 'a'"):
        write_verl_parquet(tmp_path / "x.parquet", [problem("a"), problem("a")])
    with pytest.raises(ValueError, match="no problems to write"):
        write_verl_parquet(tmp_path / "x.parquet", [])
    assert not list(tmp_path.iterdir())


def test_verl_reads_it(tmp_path, tokenizer):
    pytest.importorskip("verl", reason="verl is not installed: it has no release for this Python")
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    problems = [problem("a"), problem("b", system="Use the tool.")]
    write_verl_parquet(tmp_path / "x.parquet", problems)
    config = OmegaConf.create({"cache_dir": str(tmp_path), "filter_overlong_prompts": False})
    rows = RLHFDataset(str(tmp_path / "x.parquet"), tokenizer, config)
    assert len(rows) == 2
    for index, expected in enumerate(problems):
        row = rows[index]
        assert tuple(row["raw_prompt"]) == expected.messages
        assert row["reward_model"]["ground_truth"] == expected.answer
        assert row["extra_info"]["id"] == expected.id
        assert (row["data_source"], row["agent_name"]) == ("mine", "ctpo")
