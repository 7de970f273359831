"""Binding a pod: the only place where a decision becomes an effect."""
