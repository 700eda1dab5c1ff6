"""Reading recipes: shipped names, files, overrides, and errors that name the nearest valid key."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from ctpo.training.recipe.recipe import Recipe

# What people look for and must not find, with the reason.
_REFUSED = {
    name: "sampling must cover the whole vocabulary: cutting the tail biases every importance "
    "ratio by the mass cut off, and the prefix product raises that bias to the power t"
    for name in ("rollout.top_p", "rollout.top_k", "rollout.min_p")
}

_BRANCHES = ("float", "literal['off']", "str", "list[str]", "dict[str,list[str]]", "bool", "int")


class RecipeError(ValueError):
    """The recipe cannot be used; the message says which key, its value and what would be right."""


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("ctpo.training") / "recipes"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe and check it.

    A file may begin with `parent = "NAME"`, a shipped recipe or a file beside it: what it does not
    say itself is then its parent's.

    Args:
        name_or_path: A shipped recipe's name, or the path of a TOML file.
        overrides: Changes as `section.key=value`, the value in TOML; a bare word is a string, and
            an empty value removes the key.

    Raises:
        RecipeError: There is no such recipe, a key is unknown, or a value is wrong.
    """
    values = _read(name_or_path)
    for override in overrides:
        _apply(values, override)
    recipe = checked_recipe(values)
    for override in overrides:
        if override.startswith("verl.") and recipe.engine != "verl":
            raise RecipeError(f"{override}: the engine is {recipe.engine}, where it has no effect")
    return recipe


def checked_recipe(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe that values by section make.

    Raises:
        RecipeError: A key is unknown, or a value is wrong.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe)) from None


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as TOML with every default written out."""
    return tomli_w.dumps(recipe.model_dump(exclude_none=True, by_alias=True))


def recipe_changes(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe says otherwise than the shipped one of its name.

    Returns:
        `from`, the shipped recipe's name, or None where there is none of this name and the changes
        are those from the defaults; and `changes`, by key the value there and the value here. JSON
        holds all of it: a window without an end is the string `inf`.
    """
    here = recipe.model_dump(by_alias=True)
    if recipe.name in shipped_recipes():
        base = load_recipe(recipe.name).model_dump(by_alias=True)
        pairs = _pairs(base, here)
        return {"from": recipe.name, "changes": {k: p for k, p in pairs.items() if p[0] != p[1]}}
    own = recipe.model_dump(by_alias=True, exclude_defaults=True)
    return {"from": None, "changes": _pairs({}, own)}


def _pairs(base: Any, here: Any, name: str = "") -> dict[str, list[Any]]:  # noqa: ANN401
    if not isinstance(base, dict) and not isinstance(here, dict):
        return {name: [_in_json(base), _in_json(here)]}
    one, other = (each if isinstance(each, dict) else {} for each in (base, here))
    pairs: dict[str, list[Any]] = {}
    for key in dict.fromkeys([*one, *other]):
        pairs |= _pairs(one.get(key), other.get(key), f"{name}.{key}" if name else key)
    return pairs


def _in_json(value: Any) -> Any:  # noqa: ANN401
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read(name_or_path: str, children: Sequence[str] = ()) -> dict[str, Any]:
    if name_or_path in children:
        raise RecipeError(f"recipes are each other's parents: {' → '.join(children)}")
    values = _parse(name_or_path)
    if "parent" not in values:
        return values
    parent = values.pop("parent")
    if not isinstance(parent, str):
        raise RecipeError(f"parent is {parent!r}; it must be a recipe's name or a .toml file")
    if parent.endswith(".toml"):
        parent = str(Path(name_or_path).parent / parent)
    return _merged(_read(parent, [*children, name_or_path]), values)


def _merged(parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Return the parent's values with the child's in their place, section by section."""
    result = dict(parent)
    for name, value in child.items():
        both = isinstance(value, dict) and isinstance(parent.get(name), dict)
        result[name] = _merged(parent[name], value) if both else value
    return result


def _parse(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in shipped_recipes():
            raise RecipeError(
                f"there is no recipe {name_or_path!r}{nearest(name_or_path, shipped_recipes())}; "
                f"shipped are {', '.join(shipped_recipes())}, or give the path of a .toml file"
            )
        text = (resources.files("ctpo.training") / "recipes" / f"{name_or_path}.toml").read_text()
    elif not path.is_file():
        raise RecipeError(f"there is no file {name_or_path}")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{name_or_path} is not UTF-8: {error}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name_or_path} is not TOML: {error}") from None


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {override!r} is not of the form section.key=value")
    *sections, name = key.strip().split(".")
    table = values
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"override {override!r}: {section} is a value, not a section")
    if not text.strip():
        table.pop(name, None)
        return
    try:
        table[name] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[name] = text


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Return what is wrong with a file, whose model is `root`, a line for each key."""
    lines = []
    for problem in error.errors():
        # Of a union, pydantic names the branch too; no key of ours is called so.
        location = [part for part in problem["loc"] if part not in _BRANCHES]
        key = ".".join(str(part) for part in location) or root.__name__.lower()
        if problem["type"] == "extra_forbidden":
            names = _fields(root, problem["loc"][:-1])
            reason = _REFUSED.get(key)
            lines.append(
                f"{key} is refused: {reason}"
                if reason
                else f"{key} is unknown{nearest(str(problem['loc'][-1]), names)}; "
                f"valid here are {', '.join(names)}"
            )
        elif problem["type"] == "missing":
            lines.append(f"{key} is missing")
        elif problem["type"] == "value_error":
            # Our own validators name the key and the value themselves.
            text = str(problem["ctx"]["error"])
            lines.append(text if text.startswith(f"{key}.") else f"{key}: {text}")
        else:
            lines.append(f"{key} is {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)


def _fields(section: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the valid keys of the part of `section` at `location`."""
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return [field.alias or name for name, field in section.model_fields.items()]


def nearest(word: str, words: Sequence[str]) -> str:
    """Return a question after the word that was meant, or nothing where none is near."""
    close = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
