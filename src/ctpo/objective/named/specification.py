"""An objective as configurations say it: one reading for recipes, TRL and verl."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ctpo.objective.named.presets import changed, fields_of, imported, method_of
from ctpo.objective.objective import Objective
from ctpo.objective.parameters import unknown_name

SHORTCUTS = ("eps_low", "eps_high", "power", "clip_low", "clip_high", "dual_clip")
"""Parameters that every configuration has as fields of their own."""

_OFF = ("off", False, None)
# What is read from text, in the words of annotations; anything else is taken as it comes.
_READ = {"bool", "float", "int", "str", "None", "NoneType", "Optional", "Union", "typing", "class"}
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class ObjectiveSpec:
    """A preset by name, and what is changed of it, as text or YAML or TOML have it.

    ```python
    ObjectiveSpec("ctpo", {"eps_low": "1e-3"}, off=["dual_clip"]).build()
    ```

    Attributes:
        name: A key of `PRESETS`, or `module:name` for an objective of yours; then the name it is
            registered under.
        parameters: Values by the names that `parameters(name)` lists. Numbers may be text, which
            they are in YAML without a point (`1e-3`); `"off"`, false and null switch a parameter
            off.
        off: Parameters that are switched off.
        labels: What messages call a parameter, where that is not its name.

    Raises:
        ValueError: If there is no such preset or parameter, or a value is wrong; names the field,
            the value and what would be right.
    """

    name: str = "ctpo"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    off: Collection[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        name, method = method_of(self.name)
        known = fields_of(method.objective)
        given = {**self.parameters, **dict.fromkeys(self.off, "off")}
        read = {key: self._read(key, value, known) for key, value in given.items()}
        off = frozenset(key for key, value in read.items() if value is None)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "off", off)
        object.__setattr__(self, "parameters", {k: v for k, v in read.items() if k not in off})
        self.build()

    @classmethod
    def of(
        cls,
        name: str,
        settings: object,
        further: object,
        *,
        section: str = "",
        table: str = "parameters",
        reference: str | None = None,
        reference_field: str = "import",
    ) -> ObjectiveSpec:
        """Return what a section of a configuration says.

        Args:
            name: The preset.
            settings: Has each of `SHORTCUTS` as an attribute; None leaves the preset's value.
            further: Parameters by name, or the same as JSON; None for none.
            section: What messages put before the name of a field, e.g. `"policy_loss."`.
            table: The field that `further` comes from.
            reference: A module to import first, or `module:name` for the objective itself; see
                `imported`.
            reference_field: The field that it comes from.

        Raises:
            ValueError: As for the class; or a parameter is given twice.
        """
        if reference is not None:
            label = f"{section}{reference_field}"
            own = imported(reference, label)
            if own is not None and name not in ("ctpo", own):
                raise ValueError(
                    f"{label} is {reference!r}, which names the objective, and so does "
                    f"{name!r}; leave one out"
                )
            name = own or name
        named = {key: getattr(settings, key) for key in SHORTCUTS}
        given = {key: value for key, value in named.items() if value is not None}
        more = _mapping(f"{section}{table}", further)
        for key in given.keys() & more.keys():
            raise ValueError(f"{section}{key} is given twice, by itself and in {table}")
        labels = {key: f"{section}{key}" for key in given}
        labels |= {key: f"{section}{table}.{key}" for key in more}
        return cls(name, given | more, labels=labels)

    def build(self) -> Objective:
        """Return the objective."""
        return changed(self.name, {**self.parameters, **dict.fromkeys(self.off)})

    def changes(self) -> dict[str, Any]:
        """Return what is changed of the preset in one dictionary, with `"off"` for what is off."""
        return {**self.parameters, **dict.fromkeys(sorted(self.off), "off")}

    def _read(self, key: str, value: object, known: Mapping[str, object]) -> Any:  # noqa: ANN401
        """Return a value as its part takes it."""
        label = self.labels.get(key, key)
        if key == "gradient":
            return value
        if key == "mismatch":
            raise ValueError(
                f"{label} is {value!r}; a weight against the generating engine is for the engine "
                "to say: rollout.mismatch_cap in a recipe, vllm_importance_sampling_* on TRL, "
                "algorithm.rollout_correction.rollout_is=prefix and rollout_is_threshold on verl, "
                "mismatch_cap on other engines"
            )
        if key not in known:
            names = [*known, "gradient"]
            raise unknown_name(f"parameter of preset {self.name!r}", key, names)
        # As written, since annotations are text: "float | None", "typing.Optional[float]", ...
        kinds = set(re.findall(r"\w+", str(known[key])))
        if "Literal" in kinds:  # of texts, which are among the words
            kinds = kinds & {"None", "Optional"} | {"str"}
        result: Any
        optional = bool(kinds & {"None", "NoneType", "Optional"})
        if "bool" in kinds:
            right, result = "true or false", _BOOLEANS.get(str(value).lower())
        elif optional and any(value is x or value == "off" for x in _OFF):
            return None
        elif kinds - _READ:
            return value
        elif "float" in kinds:
            right, result = "a number, e.g. 0.05", _number(value)
        elif "int" in kinds:
            right, result = "a whole number, e.g. 4", _number(value)
            result = int(result) if result is not None and result % 1 == 0 else None
        else:
            right, result = "text", value if isinstance(value, str) else None
        if result is None:
            raise ValueError(
                f"{label} is {value!r}; it must be {right}" + (", or 'off'" if optional else "")
            )
        return result


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _mapping(label: str, value: object) -> dict[str, object]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            pass
    if not isinstance(value, Mapping | None):
        raise ValueError(
            f'{label} is {value!r}; it must map names to values, e.g. {{"tau_pos": 0.9}}'
        )
    return dict(value or {})
