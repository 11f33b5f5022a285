"""Benchmarks against other tools on the same cores: ``hybridsam-bridge bench``."""
