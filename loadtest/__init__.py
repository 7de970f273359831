"""Locust plays many kube-schedulers against one extender, and keeps its own account of every GPU."""
