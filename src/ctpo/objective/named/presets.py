"""Methods by name: the published ones and those that you register, with parameters changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, Unpack, overload

from ctpo.objective.named.methods import PUBLISHED, Preset
from ctpo.objective.named.names import Changes, OwnPreset, PresetName
from ctpo.objective.named.registry import refuse_taken
from ctpo.objective.objective import Objective
from ctpo.objective.parameters import unknown_name
from ctpo.objective.reductions import REDUCTIONS
from ctpo.references import module_of

_methods = dict(PUBLISHED)
_objectives = {name: method.objective for name, method in _methods.items()}
_told: list[Callable[[str], object]] = []

METHODS: Mapping[str, Preset] = MappingProxyType(_methods)
"""The methods by name, with formula, source and what goes with them outside the objective."""

PRESETS: Mapping[str, Objective] = MappingProxyType(_objectives)
"""The objectives of `METHODS`, by name."""

_PARTS = ("ratio", "window", "surrogate", "mismatch")
_ADVANTAGES = ("group_normalized", "group_centered")


def register_preset(name: str, method: Preset | Objective) -> OwnPreset:
    """Make a method of yours known by name: to `preset`, recipes and the engines' configurations.

    Args:
        name: A name that no preset has.
        method: The objective, or a `Preset` if reduction or advantages are to be others than
            CTPO's.

    Returns:
        The name, as one that type checkers let `preset` take.

    Raises:
        TypeError: If it is neither.
        ValueError: If the name is taken (says by what), two parts have a parameter of one name, or
            there is no such reduction or advantage.
    """
    if isinstance(method, Objective):
        method = Preset(method)
    if not isinstance(method, Preset):
        raise TypeError(f"preset {name!r} must be an Objective or a Preset, got {method!r}")
    refuse_taken("preset", name, PRESETS)
    if method.reduction not in REDUCTIONS:
        raise unknown_name("reduction", method.reduction, REDUCTIONS)
    if method.advantages not in _ADVANTAGES:
        raise unknown_name("advantages", method.advantages, _ADVANTAGES)
    names = [f.name for f in _all_fields(method.objective)]
    for key in names:
        if names.count(key) > 1:
            raise ValueError(
                f"preset {name!r}: two of its parts have a parameter {key!r}, so that it could not "
                "be changed by name; rename one"
            )
    _methods[name], _objectives[name] = method, method.objective
    try:
        for tell in _told:
            tell(name)
    except Exception:
        del _methods[name], _objectives[name]
        raise
    return OwnPreset(name)


def tell_of_presets(tell: Callable[[str], object]) -> None:
    """Have a function called with the name of every preset: of those there are, and any new one.

    Args:
        tell: What it raises undoes the registration.
    """
    for name in METHODS:
        tell(name)
    _told.append(tell)


def imported(reference: str, field: str = "import") -> str | None:
    """Import a module that defines or registers objectives of yours.

    Args:
        reference: `module`, or `module:name` with the name of an `Objective` or `Preset` in it or
            of a preset that it registers.
        field: What the reference is called in messages.

    Returns:
        The name of the preset; None if only a module is named.

    Raises:
        ValueError: If there is no such module or nothing of that name in it.
    """
    if reference in METHODS:
        return reference
    module, name = module_of(reference, field)
    if name is None:
        return None
    found = getattr(module, name, None)
    if isinstance(found, Objective | Preset):
        register_preset(reference, found)
        return reference
    if name in METHODS:
        return str(name)
    own = [key for key, value in vars(module).items() if isinstance(value, Objective | Preset)]
    raise ValueError(
        f"{field} is {reference!r}, but {module.__name__} has no objective {name!r} and registers "
        f"no such preset; it has {', '.join(own) or 'none'}"
    )


def method_of(name: str) -> tuple[str, Preset]:
    """Return a method and the name it is registered under.

    Args:
        name: A key of `METHODS`, or `module:name`; see `imported`.

    Raises:
        ValueError: If there is no such preset; names the nearest.
    """
    if isinstance(name, str) and name not in METHODS and ":" in name:
        name = imported(name, "preset") or name
    if name not in METHODS:
        raise unknown_name("preset", str(name), PRESETS)
    return name, METHODS[name]


@overload
def preset(name: PresetName, **overrides: Unpack[Changes]) -> Objective: ...
@overload
def preset(name: OwnPreset, **overrides: Any) -> Objective: ...  # noqa: ANN401
def preset(name: str, **overrides: Any) -> Objective:
    """Return a published objective or one of yours, some of its parameters changed.

    Args:
        name: A key of `PRESETS`, or `module:name` for an objective in a module of yours. A type
            checker knows the published ones; give it others as `OwnPreset("module:name")` or as
            what `register_preset` returned.
        **overrides: Parameters of the preset's choices by their names, e.g. `eps_low=0.03` or
            `dual_clip=None`; also `gradient` and `mismatch` of the objective itself.

    Returns:
        The objective.

    Raises:
        ValueError: If there is no such preset or parameter (names the nearest), or if a value is
            out of range.
    """
    return changed(name, overrides)


def changed(name: str, overrides: Mapping[str, Any]) -> Objective:
    """Return what `preset` does, for names and parameters that are known when the program runs."""
    base = method_of(name)[1].objective
    changes: dict[str, Any] = {}
    for key, value in overrides.items():
        if key in ("gradient", "mismatch"):
            changes[key] = value
            continue
        for part in _PARTS:
            if any(key == field.name for field in _fields(getattr(base, part))):
                changes[part] = replace(changes.get(part, getattr(base, part)), **{key: value})
                break
        else:
            raise unknown_name(f"parameter of preset {name!r}", key, parameters(name))
    return replace(base, **changes)


def parameters(name: str) -> list[str]:
    """Return the names that `preset(name, ...)` takes.

    Args:
        name: A key of `PRESETS`, or `module:name`.

    Raises:
        ValueError: If there is no such preset; names the nearest.
    """
    return [*fields_of(method_of(name)[1].objective), "gradient", "mismatch"]


def fields_of(objective: Objective) -> dict[str, Any]:
    """Return the parameters of an objective's parts by name, each with its annotation."""
    return {field.name: field.type for field in _all_fields(objective)}


def _all_fields(objective: Objective) -> list[Field[Any]]:
    return [field for part in _PARTS for field in _fields(getattr(objective, part))]


def _fields(part: object) -> list[Field[Any]]:
    return [field for field in fields(part) if field.init] if is_dataclass(part) else []
