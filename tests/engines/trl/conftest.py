import pytest
import torch
from datasets import Dataset
from transformers import PrinterCallback

from ctpo.engines.trl import CTPOConfig, CTPOTrainer


class Digits:
    """A rollout that needs no sandbox: random tokens from the model, holes in the mask."""

    def __init__(self, length=12):
        self.length = length

    def __call__(self, prompts, trainer):
        tokenizer = trainer.processing_class
        encoded = [
            tokenizer.encode(
                tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True)
            )
            for p in prompts
        ]
        seed = 1000 * trainer.args.seed + trainer.state.global_step
        random = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, self.length + 1, (len(prompts),), generator=random).tolist()
        ids = [torch.randint(4, 300, (n,), generator=random).tolist() for n in lengths]
        mask = [(torch.rand(n, generator=random) < 0.7).int().tolist() for n in lengths]
        for row in mask:
            row[0] = 1
        return {
            "prompt_ids": encoded,
            "completion_ids": ids,
            "logprobs": [[-1.0] * n for n in lengths],
            "env_mask": mask,
        }


def reward(completion_ids, **_):
    """Something with a signal: more small ids, more reward."""
    return [sum(i < 100 for i in ids) / len(ids) for ids in completion_ids]


@pytest.fixture
def prompts():
    texts = ["Find the gcd of 12 and 18.", "Find 7^3 mod 11.", "Sum of the digits of 31."]
    texts += ["Find 3 * (4 + 5).", "Count the numbers.", "Find the lcm of 4 and 6."]
    return Dataset.from_list([{"prompt": [{"role": "user", "content": t}]} for t in texts])


@pytest.fixture
def make_trainer(model, tokenizer, prompts, tmp_path):
    """Return a function from configuration changes to a trainer: 2 prompts x 4 responses a batch,
    4 optimizer steps on each, 6 prompts an epoch."""

    def make(
        policy=None, rollout=None, trainer=CTPOTrainer, config=CTPOConfig, kwargs=None, **changes
    ):
        settings = {
            "output_dir": str(tmp_path / "out"),
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "steps_per_generation": 4,
            "num_generations": 4,
            "max_completion_length": 16,
            "max_steps": 4,
            "learning_rate": 1e-3,
            "logging_steps": 4,
            "save_strategy": "no",
            "bf16": False,
            "gradient_checkpointing": False,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "seed": 7,
        }
        given = {
            "model": policy or model,
            "reward_funcs": [reward],
            "args": config(**settings | changes),
            "train_dataset": prompts,
            "processing_class": tokenizer,
            "rollout_func": rollout or Digits(),
        }
        made = trainer(**given | (kwargs or {}))
        made.remove_callback(PrinterCallback)
        return made

    return make
