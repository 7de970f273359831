"""Packing quality on Alibaba's openb traces; docs/packing.md says what is measured, and why."""
