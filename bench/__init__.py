"""Measurements. Numbers are ratios taken in one run: machines are noisy, and differ."""
