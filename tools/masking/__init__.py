"""Maskers: each finds the mask of one painted object."""
