"""Ours against a baseline, alternately in one run; ratios, because machines differ and are noisy."""
