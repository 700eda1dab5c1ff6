"""`ctpo plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from ctpo.cli.console import say, usable


def command(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe, such as qwen3-4b, or a .toml file.")
    ],
    gpus: Annotated[
        list[int], typer.Option(min=1, help="How many; may be repeated for a column each.")
    ],
    assume: Annotated[
        list[str] | None,
        typer.Option(help="Change an assumption: name=value, as in mfu=0.4. May be repeated."),
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: section.key=value.")
    ] = None,
) -> None:
    """Estimate what one batch of a recipe needs on so many GPUs, as a table in Markdown."""
    from ctpo.training.plan import Assumptions, table
    from ctpo.training.recipe.loading import RecipeError, load_recipe

    with usable(RecipeError, ValueError):
        text = table(load_recipe(recipe, change or []), gpus, Assumptions.of(assume or []))
    say(text)
