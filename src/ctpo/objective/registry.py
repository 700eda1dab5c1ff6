"""Parts by name, ours and those that you register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, overload

from ctpo.objective import ratios, soft_surrogates, surrogates
from ctpo.objective.parameters import unknown_name
from ctpo.objective.parts import Part, Ratio, Surrogate, Window

KindT = TypeVar("KindT", bound=type[Part])

_ratios: dict[str, type[Ratio]] = {
    "token": ratios.TokenRatio,
    "cumulative": ratios.CumulativeRatio,
    "cumulative-geometric-mean": ratios.CumulativeGeometricMeanRatio,
    "full-sequence": ratios.FullSequenceRatio,
    "sequence-geometric-mean": ratios.SequenceGeometricMeanRatio,
    "minimum-prefix": ratios.MinimumPrefixRatio,
}
_windows: dict[str, type[Window]] = {}
_surrogates: dict[str, type[Surrogate]] = {
    "clip": surrogates.ClippedSurrogate,
    "plain": surrogates.PlainSurrogate,
    "cispo": soft_surrogates.CISPOSurrogate,
    "sapo": soft_surrogates.SAPOSurrogate,
    "topr": soft_surrogates.TOPRSurrogate,
    "vespo": soft_surrogates.VESPOSurrogate,
    "gmpo": soft_surrogates.GMPOSurrogate,
    "cppo": soft_surrogates.CPPOSurrogate,
}

RATIOS: Mapping[str, type[Ratio]] = MappingProxyType(_ratios)
"""The ratios by name."""

WINDOWS: Mapping[str, type[Window]] = MappingProxyType(_windows)
"""The windows by name: those that were registered, since ours have widths to be given."""

SURROGATES: Mapping[str, type[Surrogate]] = MappingProxyType(_surrogates)
"""The surrogates by name."""


class Register:
    """Makes your parts known by name: `register(name, kind)`, or `@register(name)` over the class.

    Args:
        base: What a part must be a subclass of.
        known: The parts by name; receives the new ones.
    """

    def __init__(self, base: type, known: dict[str, Any]) -> None:
        self._base, self._known = base, known

    @overload
    def __call__(self, name: str) -> Callable[[KindT], KindT]: ...
    @overload
    def __call__(self, name: str, kind: KindT) -> KindT: ...

    def __call__(self, name: str, kind: Any = None) -> Any:
        """Register a part.

        Args:
            name: A name that no part of this kind has.
            kind: The class; left out, the call returns a decorator.

        Raises:
            ValueError: If the name is taken (says by what) or can be none.
            TypeError: If the class is no subclass of the kind's, or lacks a method that it needs.
        """
        if kind is None:
            return lambda decorated: self(name, decorated)
        what = self._base.__name__
        if not (isinstance(kind, type) and issubclass(kind, self._base)):
            raise TypeError(f"{what.lower()} {name!r} must be a subclass of {what}, got {kind!r}")
        if missing := sorted(getattr(kind, "__abstractmethods__", ())):
            raise TypeError(f"{kind.__name__} lacks {', '.join(missing)}, which a {what} needs")
        refuse_taken(what.lower(), name, self._known)
        self._known[name] = kind
        return kind


register_ratio = Register(Ratio, _ratios)
"""Makes a ratio of yours known by name: see `Register`."""

register_window = Register(Window, _windows)
"""Makes a window of yours known by name: see `Register`."""

register_surrogate = Register(Surrogate, _surrogates)
"""Makes a surrogate of yours known by name: see `Register`."""


def refuse_taken(kind: str, name: str, known: Mapping[str, object]) -> None:
    """Raise unless something new can be registered under a name.

    Args:
        kind: What is named, for the message.
        name: The name.
        known: What there is by name.

    Raises:
        ValueError: If the name is taken, or is no text.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a {kind}'s name is {name!r}; it must be a text, e.g. 'mine'")
    if name in known:
        present = known[name]
        if isinstance(present, type):
            present = f"{present.__module__}.{present.__qualname__}"
        raise ValueError(
            f"the {kind} {name!r} is already registered: {present}. Choose another name"
        )


def named(what: str, value: object, base: type[Part], known: Mapping[str, type[Part]]) -> object:
    """Return a choice, made with its default parameters if only its name was given.

    Args:
        what: What is chosen, for the message.
        value: The choice or its name.
        base: What it must be.
        known: Choices by name.

    Raises:
        TypeError: If it is neither a name nor of that kind, or a name of something whose parameters
            have no defaults.
        ValueError: If there is no such name; names the nearest.
    """
    if isinstance(value, str) and known:
        if value not in known:
            raise unknown_name(what, value, known)
        try:
            return known[value]()
        except TypeError as error:
            raise TypeError(
                f"{what} {value!r} cannot be had by its name alone, hand over an instance: {error}"
            ) from None
    if not isinstance(value, base):
        names = f" or one of {', '.join(known)}" if known else ""
        raise TypeError(f"{what} must be an instance of {base.__name__}{names}, got {value!r}")
    return value
