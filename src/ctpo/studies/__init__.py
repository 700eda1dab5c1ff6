"""Studies: many runs by one file, compared with seeds and intervals."""
