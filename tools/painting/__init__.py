"""Painters make pixels."""
