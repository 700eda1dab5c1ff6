"""verl's configuration, made of a recipe: composed by Hydra, checked by verl's loaders, written."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctpo.engines.verl.paths import SEARCH_PATH
from ctpo.training.recipe.engines import Verl
from ctpo.training.verl.fields import FIELDS, Mapped
from ctpo.training.verl.files import VerlFiles

if TYPE_CHECKING:
    from omegaconf import DictConfig

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

# What verl's configuration does not have until somebody sets it.
_ADDED = (
    f"{_ACTOR}.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    f"{_ACTOR}.policy_loss.parameters",
    f"{_ROLLOUT}.custom",
    "actor_rollout_ref.model.override_config",
    "trainer.v1.sampler.sampler_kwargs",
    "data.apply_chat_template_kwargs",
    "ray_kwargs.ray_init.runtime_env.env_vars",
)

# What verl's workers load as dataclasses. The model is not among them: its files are read; nor is
# the reward, whose class of verl 0.9.1 cannot be made.
_LOADED = (
    _ACTOR,
    f"{_ACTOR}.policy_loss",
    _ROLLOUT,
    f"{_ROLLOUT}.agent",
    f"{_ROLLOUT}.val_kwargs",
    "algorithm",
)


def compose(verl: Verl, decided: Mapping[str, Any]) -> DictConfig:
    """Return verl's own `ppo_trainer` configuration with the recipe's settings in it.

    Args:
        verl: Its overrides go in as well.
        decided: What `settings` returned.

    Raises:
        ValueError: verl has no such setting, or an override cannot be read.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _refuse_decided(verl.overrides, decided)
    config = copy.deepcopy(_ppo_trainer(tuple(verl.overrides)))
    try:
        for key, value in decided.items():
            OmegaConf.update(config, key, value, force_add=key.startswith(_ADDED))
    except OmegaConfBaseException as error:
        raise ValueError(f"verl's configuration cannot be made: {error}") from error
    return config


@functools.cache
def _ppo_trainer(overrides: tuple[str, ...]) -> DictConfig:
    """Return verl's configuration with our section for the loss; it is looked at more than once."""
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException

    own = [f"hydra.searchpath=[{SEARCH_PATH}]", "+policy_loss=ctpo"]
    try:
        with (
            warnings.catch_warnings(),
            initialize_config_module("verl.trainer.config", version_base=None),
        ):
            warnings.simplefilter("ignore")  # verl's, of engines that are not installed
            return compose("ppo_trainer", [*own, *overrides])
    except HydraException as error:
        raise ValueError(f"verl's configuration cannot be made: {error}") from error


def _refuse_decided(overrides: Sequence[str], decided: Mapping[str, Any]) -> None:
    for override in overrides:
        key, equals, _ = override.partition("=")
        key = key.lstrip("+~")
        if not key or not (equals or override.startswith("~")):
            raise ValueError(f"verl.overrides has {override!r}; it must be of the form key=value")
        for own in decided:
            if f"{key}.".startswith(f"{own}.") or f"{own}.".startswith(f"{key}."):
                fields = [
                    f"{name}" for name, fate in FIELDS.items()
                    if isinstance(fate, Mapped) and own in fate.keys
                ]  # fmt: skip
                by = f"the recipe's {' and '.join(fields)}" if fields else "ctpo"
                raise ValueError(f"verl.overrides has {override!r}, but {own} is for {by} to say")


def validate(config: DictConfig) -> None:
    """Have verl's own checks and loaders look at its configuration, and ours.

    Raises:
        ValueError: One of them refuses it.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # That there is no critic, which the recipe has decided, and which other engines verl
            # could have.
            warnings.simplefilter("ignore")
            from verl.trainer.ppo.utils import need_critic, need_reference_policy
            from verl.utils.config import omega_conf_to_dataclass, validate_config

            from ctpo.engines.verl.refusals import refuse_and_warn

            validate_config(config, need_reference_policy(config), need_critic(config))
            for section in _LOADED:
                omega_conf_to_dataclass(OmegaConf.select(config, section))
        refuse_and_warn(config)
    except (AssertionError, HydraException, OmegaConfBaseException, TypeError) as error:
        cause = error.__cause__ or error
        raise ValueError(f"verl refuses its configuration: {cause}") from error


def as_yaml(config: DictConfig, files: VerlFiles) -> str:
    """Return verl's configuration as the file it is started from."""
    from omegaconf import OmegaConf

    # Hydra writes beside the run, not into the directory it was called in.
    hydra = {"hydra": {"run": {"dir": str(files.folder)}, "output_subdir": None}}
    return OmegaConf.to_yaml(hydra) + OmegaConf.to_yaml(config)


def command(files: VerlFiles) -> list[str]:
    """Return the command that starts verl."""
    place = ["--config-path", str(files.folder), "--config-name", files.config.stem]
    return [sys.executable, "-m", "verl.trainer.main_ppo", *place]


def environment(decided: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that verl's driver needs; its workers get them through Ray."""
    prefix = "ray_kwargs.ray_init.runtime_env.env_vars."
    own = {k.removeprefix(prefix): v for k, v in decided.items() if k.startswith(prefix)}
    return own | {"PYTHONUNBUFFERED": "1", "RAY_DEDUP_LOGS": "0"}


def describe(config: DictConfig, decided: Mapping[str, Any], files: VerlFiles) -> str:
    """Return what a dry run prints: verl's settings by the recipe, all of them, the command."""
    changed = "".join(f"{key}={json.dumps(value)}\n" for key, value in decided.items())
    return (
        f"\n# What the recipe decides of verl's settings\n{changed}"
        f"\n# {files.config}\n{as_yaml(config, files)}"
        f"\n# The command\n{shlex.join(command(files))}\n"
    )
