"""A recipe on TRL, on one machine."""
