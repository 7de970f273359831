"""A cluster to try the extender on, and a small kube-scheduler for it."""
