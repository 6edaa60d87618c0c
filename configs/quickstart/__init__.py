"""Hand-drawn masks of photographs that ship with scikit-image."""
