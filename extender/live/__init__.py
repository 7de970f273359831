"""A real cluster, kept in step by list and watch."""
