"""CTPO on TRL: a configuration and a trainer, usable without the rest of the package."""

from ctpo.engines.trl.config import CTPOConfig
from ctpo.engines.trl.ratio_log import RatioLog
from ctpo.engines.trl.scores import RolloutScores
from ctpo.engines.trl.trainer import CTPOTrainer

__all__ = ["CTPOConfig", "CTPOTrainer", "RatioLog", "RolloutScores"]
