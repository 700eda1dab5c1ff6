"""What the README and the pages of the documentation tell users to type works."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import typer
import yaml  # type: ignore[import-untyped]
from datasets import Dataset

from ctpo.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
READ = {"toml": tomllib.loads, "yaml": yaml.safe_load, "json": json.loads}


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the rule says of it.

    One rule holds for all pages: a block is run, unless the line above it says why not, as
    `<!-- not run: needs a GPU -->`. `python` is executed; `<!-- long -->` keeps it out of the
    quick tests. A block without a language is for the shell, and all of a page's run one after
    another in one directory. `toml`, `yaml` and `json` are read, `mermaid` is a picture, and
    `text` is what the block above it prints, where `…` stands for anything. What has a title is
    a file of that name, which the page's commands find.
    """

    page: Path
    number: int
    language: str
    text: str
    title: str | None = None
    mark: str | None = None
    prints: str | None = None

    def runs_as(self, *languages):
        not_run = self.mark is not None and self.mark.startswith("not run: ")
        return self.language in languages and not not_run

    def check(self, shown):
        if self.prints is not None:
            wanted = re.escape(self.prints.strip()).replace("…", ".*")
            assert re.fullmatch(wanted, shown.strip(), re.S), shown


def blocks_of(page):
    fence = re.compile(
        r'^(?:<!-- ([^\n]*) -->\n)?```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.M | re.S
    )
    found: list[Block] = []
    for number, match in enumerate(fence.finditer(page.read_text("utf-8")), start=1):
        mark, language, title, text = match.groups()
        if language == "text" and mark is None:
            found[-1] = replace(found[-1], prints=text)
        else:
            found.append(Block(page, number, language, text, title, mark))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def params(*languages):
    return [
        pytest.param(
            block,
            id=f"{block.page.name}-{block.number}",
            marks=[pytest.mark.long] if block.mark == "long" else [],
        )
        for block in BLOCKS
        if block.runs_as(*languages)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page):
    found = blocks_of(page)
    # No fence that the pattern of blocks leaves out, such as one in a list.
    fences = re.findall(r"^ *```", page.read_text("utf-8"), re.M)
    assert len(fences) == 2 * (len(found) + sum(block.prints is not None for block in found))
    for block in found:
        assert block.title or block.language in {"", "python", "text", "mermaid", *READ}, block
        marked = block.mark is None or block.mark == "long" or len(block.mark) > len("not run: why")
        assert marked, block
        assert block.mark is None or re.match("long$|not run: ", block.mark), block
        if block.runs_as(*READ):
            READ[block.language](block.text)


@pytest.mark.long
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.runs_as("") for block in blocks_of(page))],
    ids=lambda page: page.name,
)
def test_the_commands_of_a_page_run_one_after_another(page, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for block in blocks_of(page):
        if block.title is not None:
            (tmp_path / block.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.title).write_text(block.text)
        elif block.runs_as(""):
            shown = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert shown.returncode == 0, f"{block.text}\n{shown.stdout}\n{shown.stderr}"
            block.check(shown.stdout)


@pytest.fixture
def short_spoken(model, tokenizer, tmp_path):
    """Directory of a model that soon comes to an end, in place of one from the Hub."""
    end, optimizer = tokenizer.eos_token_id, torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        logits = model(torch.randint(len(tokenizer), (8, 16))).logits.flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, torch.full((len(logits),), end))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def tinkers_clients():
    """A batch for tinker and its clients, as far as they go without its service."""
    tinker = pytest.importorskip("tinker", reason="needs the package tinker")
    from tinker.lib.public_interfaces.custom_loss import trace_loss
    from tinker.lib.public_interfaces.training_client import TrainingClient

    logprobs = tinker.TensorData.from_torch(-torch.ones(4))
    names = ("logprobs", "old_logprobs", "advantages", "mask", "weights")
    columns = dict.fromkeys(names, logprobs) | {
        "mask": tinker.TensorData.from_torch(torch.ones(4)),
        "target_tokens": tinker.TensorData.from_torch(torch.arange(4)),
    }
    datum = tinker.Datum(
        model_input=tinker.ModelInput.from_ints([1, 2, 3, 4]), loss_fn_inputs=columns
    )
    forward = tinker.ForwardBackwardOutput(
        loss_fn_output_type="", loss_fn_outputs=[{"logprobs": logprobs}], metrics={}
    )

    def forward_backward_custom(data, loss):
        return TrainingClient._compute_custom_loss(data, loss, forward)

    def create_custom_loss(loss, ranks):
        return trace_loss(loss, ranks, "session")

    return {
        "data": [datum],
        "training_client": SimpleNamespace(forward_backward_custom=forward_backward_custom),
        "service_client": SimpleNamespace(create_custom_loss=create_custom_loss),
    }


def the_examples_task(place, model, monkeypatch):
    """The parts that the example is made of, and its recipe in small."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    recipe = (ROOT / "examples/own_task.toml").read_text()
    changed = recipe.replace("runs/own-task-model", model).replace("batches = 3", "batches = 1")
    (place / "own_task.toml").write_text(changed)
    return vars(importlib.import_module("own_task"))


@pytest.fixture
def users_own(make_batch, sandbox, registering):
    """What the pages take for granted."""
    import ctpo

    logprobs, old_logprobs, advantages, mask = make_batch(2, 10)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield {
        "ctpo": ctpo,
        "objective": ctpo.preset("ctpo"),
        **{"logprobs": logprobs, "lp1": logprobs[0], "lp2": logprobs[1]},
        **{"old_logprobs": old_logprobs, "old1": old_logprobs[0], "old2": old_logprobs[1]},
        **{"mask": mask, "mask1": mask[0], "mask2": mask[1], "advantages": advantages},
        **{"packed": logprobs.flatten(), "old_packed": old_logprobs.flatten()},
        **{"packed_mask": mask.flatten(), "edges": torch.tensor([0, 10, 20])},
        **{"part": logprobs, "old_part": old_logprobs, "part_mask": mask},
        "group": torch.distributed.group.WORLD,
        "sandbox": sandbox,
        **{"response": r"So it is \boxed{42}.", "gold": "42"},
        "reward": lambda completions, **_: [float(len(text) % 2) for text in completions],
        "dataset": Dataset.from_dict({"prompt": [f"Name {n} numbers." for n in range(16)]}),
    }
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block", params("python"))
def test_python_runs_as_it_stands(block, users_own, short_spoken, tmp_path, monkeypatch, capsys):
    page = block.page
    monkeypatch.chdir(tmp_path)
    if page.stem == "tinker":
        users_own |= tinkers_clients()
    if page.stem == "own_task":
        users_own |= the_examples_task(tmp_path, short_spoken, monkeypatch)
    code = block.text.replace('"Qwen/Qwen3-0.6B"', repr(short_spoken))
    exec(compile(code, str(page), "exec"), users_own)
    block.check(capsys.readouterr().out)


def test_expressions_of_the_readme_can_be_evaluated():
    import ctpo
    from ctpo.objective import Objective, sqrt

    readme = re.sub(r"\s+", " ", FENCED.sub("", PAGES[0].read_text("utf-8")))
    found = re.findall(r"`((?:ctpo\.preset|Objective)\([^`]*\))`", readme)
    assert len(found) >= 2
    for expression in found:
        eval(expression, {"ctpo": ctpo, "Objective": Objective, "sqrt": sqrt})


def commands():
    """Every line of a block or in backticks that starts with one of our commands."""
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", "")
        blocks = [block for language, block in FENCED.findall(text) if language == ""]
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
        for line in dict.fromkeys(lines):
            if re.match(r"(\.venv/bin/)?ctpo |make |pip install '\.", line):
                yield pytest.param(line, id=f"{page.name}: {line}")


@pytest.mark.parametrize("line", list(commands()))
def test_a_command_line_names_what_there_is(line):
    name, *words = shlex.split(line, comments=True)
    if name == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = set(re.findall(r"^([\w-]+):", makefile, re.M))
        variables = set(re.findall(r"^(\w+) \??=", makefile, re.M))
        for word in words:
            variable, is_set, _ = word.partition("=")
            assert variable in variables if is_set else word in targets, word
    elif name == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extra in re.findall(r"[\w-]+", words[-1]):
            assert extra in project["optional-dependencies"], extra
    else:
        command = typer.main.get_command(app)
        while (below := getattr(command, "commands", None)) and words and words[0][0] != "-":
            assert words[0] in below, words
            command = below[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            assert not word.startswith("--") or word.partition("=")[0] in {*options, "--help"}, word
