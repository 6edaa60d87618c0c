"""Placement of cut-outs in scenes, and harmonization."""
