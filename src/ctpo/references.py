"""Parts of your own by `module:name`, or handed over in Python: one way to find and to check them.

An object that is handed over gets a reference, too, so that everything behind it works by name, and
a run's recipe says what it was made with.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_REFERENCE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)(?::(.+))?")
# Of an object without a name to import it by.
_GIVEN = "given"

_given: dict[str, object] = {}


def is_reference(text: str) -> bool:
    """Return whether a text has the form `module:name`."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and (match[2] or "").isidentifier()


def module_of(reference: str, field: str) -> tuple[ModuleType, str | None]:
    """Import the module of `module` or `module:name`; returns it and the name.

    Args:
        reference: The text.
        field: What it is called in messages.

    Raises:
        ValueError: It has another form, or there is no such module.
    """
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise ValueError(
            f"{field} is {reference!r}; it must be of the form module or module:name, e.g. "
            "'my_package.parts:mine'"
        )
    try:
        return importlib.import_module(match[1]), match[2]
    except ModuleNotFoundError as error:
        if not f"{match[1]}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks one itself
        raise ValueError(
            f"{field} is {reference!r}, but there is no module {error.name!r}; install it, or put "
            "its folder on PYTHONPATH"
        ) from None


def find(reference: str, field: str, known: Sequence[str] = ()) -> Any:  # noqa: ANN401
    """Return what `module:name` names.

    Args:
        reference: The text.
        field: What it is called in messages.
        known: Names of ours that could stand there instead, for the message.

    Raises:
        ValueError: It has another form, or there is no such module or nothing of that name in it.
    """
    if reference in _given:
        return _given[reference]
    if not isinstance(reference, str) or not is_reference(reference):
        ours = f"one of {', '.join(known)}, or " if known else ""
        raise ValueError(f"{field} is {reference!r}; it must be {ours}module:name, a part of yours")
    if reference.startswith(f"{_GIVEN}:"):
        raise ValueError(
            f"{field} is {reference!r}, which was handed over in Python and cannot be imported; "
            "hand it over again, or put it into a module"
        )
    module, name = module_of(reference, field)
    if not hasattr(module, str(name)):
        own = [key for key, value in vars(module).items() if _defined_in(value, module)]
        raise ValueError(
            f"{field} is {reference!r}, but {module.__name__} has no {name!r}; it has "
            f"{', '.join(own) or 'nothing of its own'}"
        )
    return getattr(module, str(name))


def find_function(
    reference: str, field: str, takes: Sequence[str], known: Sequence[str] = ()
) -> Callable[..., Any]:
    """Return the function that `module:name` names.

    Args:
        reference: The text.
        field: What it is called in messages.
        takes: The arguments it will be called with, by place.
        known: Names of ours that could stand there instead, for the message.

    Raises:
        ValueError: As `find`; or it cannot be called, or not with these arguments.
    """
    found = find(reference, field, known)
    wanted = f"a function of ({', '.join(takes)})"
    if not callable(found):
        raise ValueError(f"{field} is {reference!r}, a {type(found).__name__}; it must be {wanted}")
    try:
        signature = inspect.signature(found)
    except ValueError:  # some that are written in C have none
        return found
    try:
        signature.bind(*takes)
    except TypeError as error:
        raise ValueError(
            f"{field} is {reference!r}, which takes {signature}; it must be {wanted}: {error}"
        ) from None
    return found


def reference_to(thing: object, name: str) -> str:
    """Return a reference by which `find` finds an object in this process.

    Args:
        thing: The object, or the text of a reference, which is returned as it is.
        name: What it is called if it has no name of its own, as a list has none.
    """
    if isinstance(thing, str):
        return thing
    reference = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    if not is_reference(reference):  # a lambda, or within a function
        reference = f"{_GIVEN}:{name}"
    _given[reference] = thing
    return reference


def _defined_in(value: object, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__ and hasattr(value, "__qualname__")
