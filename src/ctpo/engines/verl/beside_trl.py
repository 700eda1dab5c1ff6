"""verl beside a TRL that has no value heads any more.

verl patches TRL's `AutoModelForCausalLMWithValueHead` before it builds any FSDP model, the policy
included, as soon as TRL is installed. TRL has removed the class, so that with both packages in one
environment every worker of verl 0.9 ends with an ImportError.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

# Where verl has its name for "is TRL installed", the place of definition first.
_PLACES = ("verl.utils.import_utils", "verl.utils.model", "verl.models.transformers.monkey_patch")
# Where TRL has had the class, newest place first.
_VALUE_HEADS = ("experimental/ppo/modeling_value_head.py", "models/modeling_value_head.py")


def hide_trl_from_verl() -> bool:
    """Tell verl that TRL is not installed, if what it wants of TRL does not exist.

    Only critics made from a checkpoint with TRL's value heads need the class; without it they
    cannot be loaded in any case.

    Returns:
        Whether TRL is hidden now.
    """
    spec = importlib.util.find_spec("trl")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    # Looked up as files, since importing TRL takes seconds.
    if not folders or any((folder / file).exists() for folder in folders for file in _VALUE_HEADS):
        return False
    importlib.import_module(_PLACES[0])
    for place in _PLACES:  # modules imported later take the name from the first place
        if place in sys.modules:
            sys.modules[place].is_trl_available = _not_available  # type: ignore[attr-defined]
    return True


def _not_available() -> bool:
    return False
