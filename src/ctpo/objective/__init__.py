"""The mathematics: tensors in, per-token loss out.

Imports torch, numpy and the standard library only.

```python
objective = preset("ctpo")
out = objective(logprobs, old_logprobs, advantages, mask)
out.mean("seq-mean-token-mean").backward()
```
"""

from ctpo.objective.advantages import group_centered, group_normalized, leave_one_out
from ctpo.objective.calibration import Calibration, calibrate
from ctpo.objective.layout import Layout
from ctpo.objective.mismatch import Mismatch, icepop
from ctpo.objective.named.methods import Preset
from ctpo.objective.named.presets import METHODS, PRESETS, parameters, preset, register_preset
from ctpo.objective.named.registry import (
    RATIOS,
    SURROGATES,
    WINDOWS,
    register_ratio,
    register_surrogate,
    register_window,
)
from ctpo.objective.named.specification import ObjectiveSpec
from ctpo.objective.objective import Objective
from ctpo.objective.output import ObjectiveOutput, Sequences
from ctpo.objective.parts import (
    Bounds,
    Choices,
    Ratio,
    Surrogate,
    Tokens,
    TokenTerms,
    Window,
)
from ctpo.objective.ratios import (
    CumulativeGeometricMeanRatio,
    CumulativeRatio,
    FullSequenceRatio,
    MinimumPrefixRatio,
    SequenceGeometricMeanRatio,
    TokenRatio,
)
from ctpo.objective.reductions import (
    REDUCTIONS,
    seq_mean_token_mean,
    seq_mean_token_sum,
    token_mean,
)
from ctpo.objective.soft_surrogates import (
    CISPOSurrogate,
    CPPOSurrogate,
    GMPOSurrogate,
    SAPOSurrogate,
    TOPRSurrogate,
    VESPOSurrogate,
)
from ctpo.objective.statistics.on_policy import OnPolicyReport
from ctpo.objective.statistics.positions import PositionStatistics
from ctpo.objective.surrogates import ClippedSurrogate, PlainSurrogate
from ctpo.objective.windows import (
    DriftFreeWindow,
    KLWindow,
    LogWindow,
    RatioWindow,
    fixed,
    sqrt,
)

__all__ = [
    "METHODS",
    "PRESETS",
    "RATIOS",
    "REDUCTIONS",
    "SURROGATES",
    "WINDOWS",
    "Bounds",
    "CISPOSurrogate",
    "CPPOSurrogate",
    "Calibration",
    "Choices",
    "ClippedSurrogate",
    "CumulativeGeometricMeanRatio",
    "CumulativeRatio",
    "DriftFreeWindow",
    "FullSequenceRatio",
    "GMPOSurrogate",
    "KLWindow",
    "Layout",
    "LogWindow",
    "MinimumPrefixRatio",
    "Mismatch",
    "Objective",
    "ObjectiveOutput",
    "ObjectiveSpec",
    "OnPolicyReport",
    "PlainSurrogate",
    "PositionStatistics",
    "Preset",
    "Ratio",
    "RatioWindow",
    "SAPOSurrogate",
    "SequenceGeometricMeanRatio",
    "Sequences",
    "Surrogate",
    "TOPRSurrogate",
    "TokenRatio",
    "TokenTerms",
    "Tokens",
    "VESPOSurrogate",
    "Window",
    "calibrate",
    "fixed",
    "group_centered",
    "group_normalized",
    "icepop",
    "leave_one_out",
    "parameters",
    "preset",
    "register_preset",
    "register_ratio",
    "register_surrogate",
    "register_window",
    "seq_mean_token_mean",
    "seq_mean_token_sum",
    "sqrt",
    "token_mean",
]
