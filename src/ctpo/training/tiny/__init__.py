"""A model that is made here: from nothing to a policy that uses its tool badly."""
