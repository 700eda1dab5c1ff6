"""The mathematics: tensors in, per-token loss out.

Imports torch and the standard library only.

```python
objective = preset("ctpo")
out = objective(logprobs, old_logprobs, advantages, mask)
out.mean("seq-mean-token-mean").backward()
```
"""

from ctpo.objective.advantages import group_normalized
from ctpo.objective.objective import Objective, ObjectiveOutput
from ctpo.objective.presets import PRESETS, preset
from ctpo.objective.ratios import (
    CumulativeRatio,
    FullSequenceRatio,
    Ratio,
    SequenceGeometricMeanRatio,
    TokenRatio,
)
from ctpo.objective.reductions import (
    REDUCTIONS,
    seq_mean_token_mean,
    seq_mean_token_sum,
    token_mean,
)
from ctpo.objective.statistics import PositionStatistics
from ctpo.objective.surrogates import ClippedSurrogate, Surrogate, TokenTerms
from ctpo.objective.windows import Bounds, LogWindow, RatioWindow, Window

__all__ = [
    "PRESETS",
    "REDUCTIONS",
    "Bounds",
    "ClippedSurrogate",
    "CumulativeRatio",
    "FullSequenceRatio",
    "LogWindow",
    "Objective",
    "ObjectiveOutput",
    "PositionStatistics",
    "Ratio",
    "RatioWindow",
    "SequenceGeometricMeanRatio",
    "Surrogate",
    "TokenRatio",
    "TokenTerms",
    "Window",
    "group_normalized",
    "preset",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "token_mean",
]
