"""A recipe on verl, on a cluster."""
