"""The objective in one pass on a GPU; imported only where Triton is there."""
