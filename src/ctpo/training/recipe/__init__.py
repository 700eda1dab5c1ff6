"""Recipes: everything that decides a run, as typed and checked configuration."""
