"""CTPO on tinker: a loss for `forward_backward_custom`, run here or traced for the server."""

from ctpo.engines.tinker.client_loss import TinkerLoss
from ctpo.engines.tinker.traced_loss import INPUT_RANKS, token_weights, traced_loss

__all__ = ["INPUT_RANKS", "TinkerLoss", "token_weights", "traced_loss"]
