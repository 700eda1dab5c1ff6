"""Objectives by name: registry, presets, published methods, and one specification for all."""
