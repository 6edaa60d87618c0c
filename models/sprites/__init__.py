"""Layer diffusion of one transparent object, small enough for two CPU cores."""
