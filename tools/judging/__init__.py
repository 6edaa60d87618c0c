"""Deterministic measures and the limits that judge them."""
