"""Modules around a solve: what is observed, and the hybrid forms other than a sum in the right-hand side."""
