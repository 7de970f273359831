"""The pure core: integers and frozen values; no I/O, clock or randomness."""
