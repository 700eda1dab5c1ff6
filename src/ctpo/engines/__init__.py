"""One adapter per training engine. None is imported before it is asked for."""
