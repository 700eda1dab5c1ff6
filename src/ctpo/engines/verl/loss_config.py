"""`CTPOPolicyLossConfig`: verl's `policy_loss` section with the objective's parameters.

Importing this module registers the losses, so that naming the class as `_target_` loads the
plug-in in every worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from verl.workers.config import PolicyLossConfig

from ctpo.engines.verl.names import PRESET_OF, VERLS_OWN, loss_name
from ctpo.engines.verl.refusals import (
    refuse_loss_settings,
    refuse_mismatch,
    refuse_rollout_correction,
)
from ctpo.objective import Objective, ObjectiveSpec
from ctpo.objective.named.presets import imported
from ctpo.objective.parameters import unknown_name


@dataclass
class CTPOPolicyLossConfig(PolicyLossConfig):
    """The loss and its parameters. One that is left at None keeps the preset's value.

    Args:
        loss_mode: Name of the loss, a key of `ctpo.engines.verl.names.PRESET_OF`: a preset's name,
            or `ctpo-<name>` where verl has a loss of that name.
        import_: A module of yours that registers presets, imported in every worker before
            `loss_mode` is looked up; or `module:name` for an objective in it, and then `loss_mode`
            stays `ctpo`.
        eps_low: Lower edge of a log-space window, times t^power.
        eps_high: Upper edge of a log-space window, times t^power.
        power: How a log-space window grows with position.
        clip_low: Lower edge of a ratio-space window, 1 - clip_low.
        clip_high: Upper edge of a ratio-space window, 1 + clip_high.
        dual_clip: Upper bound for negative advantages, in the window's own terms; `"off"` removes
            it.
        parameters: Further parameters of the preset by name, e.g. `{"tau_pos": 0.9}`; `"off"`
            stands for none.
        positions: Directory that statistics by position are written to, one file per training
            step; None for none. All nodes may have it; the first rank of the actor writes.

    Raises:
        ValueError: The loss is not ours or has no such parameter, a parameter is out of range, or a
            field of verl's has no effect on our losses.
    """

    loss_mode: str = "ctpo"
    import_: str | None = None
    eps_low: float | str | None = None
    eps_high: float | str | None = None
    power: float | str | None = None
    clip_low: float | str | None = None
    clip_high: float | str | None = None
    dual_clip: float | str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    positions: str | None = None

    def __post_init__(self) -> None:
        refuse_loss_settings(self)
        refuse_rollout_correction(self.rollout_correction)
        refuse_mismatch(self.build_objective())

    @property
    def objective_spec(self) -> ObjectiveSpec:
        """What the section says of the objective.

        Raises:
            ValueError: As for the class.
        """
        if self.import_ is not None:
            imported(self.import_, "policy_loss.import_")
        if self.loss_mode in VERLS_OWN:
            raise ValueError(
                f"policy_loss.loss_mode {self.loss_mode!r} is verl's own loss, which does not take "
                f"this section; ours is {loss_name(self.loss_mode)!r}"
            )
        if self.loss_mode not in PRESET_OF:
            raise unknown_name("policy_loss.loss_mode", self.loss_mode, PRESET_OF)
        return ObjectiveSpec.of(
            PRESET_OF[self.loss_mode],
            self,
            self.parameters,
            section="policy_loss.",
            reference=self.import_,
            reference_field="import_",
        )

    def build_objective(self) -> Objective:
        """Return the objective that the section describes.

        Raises:
            ValueError: As for the class, or the objective has a mismatch weight, which is verl's to
                compute.
        """
        return self.objective_spec.build()


from ctpo.engines.verl import plugin  # noqa: E402, F401 - whoever configures a loss has it
