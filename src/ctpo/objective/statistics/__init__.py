"""Statistics by position: sums that merge over micro-batches, ranks and steps."""
