"""Recipes, the tiny model and its warm start, and the run directory.

Its names are imported from its files, so that reading a recipe does not load a training engine.
"""
