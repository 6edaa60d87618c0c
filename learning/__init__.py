"""Training of the small models that ship with the package, seeded and resumable."""
