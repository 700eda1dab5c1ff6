"""Gradients of real models for `ctpo.theory`."""
