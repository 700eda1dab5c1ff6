"""Tools of your own beside Python: a function, or a class that remembers within an episode.

They run in the process that collects the episodes, not in the sandbox. The policy writes their
arguments, so a tool must never run those as code.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

from ctpo.references import find


class ToolError(ValueError):
    """A call cannot be answered, by fault of what the policy wrote; it is shown the message."""


@dataclass(frozen=True)
class Tool:
    """A tool that the policy can call by name.

    Attributes:
        name: Its name.
        schema: What the policy is told of it: name, description and parameters, as JSON schema.
        open: Returns what is called in one episode: the function, or an instance of the class.
    """

    name: str
    schema: Mapping[str, Any]
    open: Callable[[], Callable[..., Any]]

    @classmethod
    def of(cls, part: object, field: str = "tools") -> Tool:
        """Make a tool of a function, or of a class with `__call__`.

        Its schema comes from the type hints and the Google docstring, as `transformers` reads them.
        A class is made anew, without arguments, for each episode that calls it, and its `close` is
        called at the episode's end, if it has one.

        Args:
            part: The function or the class; or its `module:name`.
            field: What it is called in messages.

        Raises:
            ValueError: It cannot be found or called, or lacks a type hint or a description.
        """
        from transformers.utils import chat_template_utils as templates

        found: Any = find(part, field) if isinstance(part, str) else part
        is_class = isinstance(found, type)
        if not callable(found) or (is_class and "__call__" not in dir(found)):
            raise ValueError(
                f"{field} is {part!r}, a {type(found).__name__}; it must be a function, or a class "
                "with __call__"
            )
        # Of a class the schema is that of its method, less `self`; nothing is made for it.
        function = MethodType(found.__call__, found) if is_class else found
        try:
            schema = templates.get_json_schema(function)["function"]
        except (templates.DocstringParsingException, templates.TypeHintParsingException) as error:
            raise ValueError(
                f"{field} is {part!r}; a tool needs a docstring in Google's style that describes "
                f"each argument, and type hints: {error}"
            ) from None
        name = found.__name__
        return cls(name, {**schema, "name": name}, found if is_class else lambda: found)


class Tools:
    """The tools of one episode, opened when they are first called."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._open: dict[str, Callable[..., Any]] = {}

    @classmethod
    @contextmanager
    def of_episodes(cls, tools: Sequence[Tool], count: int) -> Iterator[list[Tools]]:
        """Yield the tools of so many episodes, and close what they have opened."""
        with ExitStack() as stack:
            every = [cls(tools) for _ in range(count)]
            for one in every:
                stack.callback(one.close)
            yield every

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Return what a tool answers: its text, or else its value as JSON.

        Args:
            name: Of the tool.
            arguments: By name, as the policy wrote them; they are converted to the type hints.

        Raises:
            ToolError: The arguments do not fit, or the tool raised a `ValueError`.
        """
        from pydantic import ValidationError, validate_call

        if name not in self._open:
            self._open[name] = self._tools[name].open()
        opened: Any = self._open[name]
        function = validate_call(opened if inspect.isroutine(opened) else opened.__call__)
        try:
            value = function(**arguments)
        except ValidationError as error:
            said = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ToolError("; ".join(said)) from None
        except ValueError as error:
            raise ToolError(str(error)) from error
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def close(self) -> None:
        """Close what was opened."""
        for opened in self._open.values():
            close = getattr(opened, "close", None)
            if close is not None:
                close()
