"""CTPO on verl: losses, episodes, tool and reward that plug into an unchanged verl."""
