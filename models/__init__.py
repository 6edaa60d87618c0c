"""Models: what there is, where it is kept, and how it is loaded; nothing is loaded at import."""
