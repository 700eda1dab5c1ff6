"""What the ratios of a TRL run do, from log-probabilities that its trainer writes down.

python examples/analyze_trl.py MODEL rollouts.parquet     # then: ctpo analyze rollouts.parquet

It is TRL's own trainer with its own loss; what is added only looks on. See docs/analyze.md for
which columns there are.
"""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer


class Recording(GRPOTrainer):
    """Keeps both log-probabilities of each token, as the loss compares them."""

    rows = []

    def _get_per_token_logps_and_entropies(self, *args, **options):
        self.last = super()._get_per_token_logps_and_entropies(*args, **options)
        return self.last

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        new, old = self.last[0].detach(), inputs.get("old_per_token_logps")
        columns = {
            "logprobs": new,
            "old_logprobs": new if old is None else old,  # the policy has not moved yet
            "mask": inputs["completion_mask"],
            "advantages": inputs["advantages"],
        }
        lists = [value.float().tolist() for value in columns.values()]
        self.rows += [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]
        return loss


def digits(completions, **_):
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]


def main(model, file):
    args = GRPOConfig(
        "runs/analyzed", per_device_train_batch_size=8, num_generations=8, steps_per_generation=4,
        max_completion_length=16, max_steps=8, learning_rate=1e-3, bf16=False, report_to="none",
        save_strategy="no",
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": [f"Name {n} numbers." for n in range(32)]})
    trainer = Recording(model, digits, args, data)
    trainer.train()
    pq.write_table(pa.Table.from_pylist(trainer.rows), file)
    print(f"{len(trainer.rows)} responses in {file}; look at them with: ctpo analyze {file}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
