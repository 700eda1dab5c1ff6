"""Answers as people write them, read into trees: strictly, or not at all."""
