"""Evaluating a model: one trained here, one from elsewhere, one behind a server."""
