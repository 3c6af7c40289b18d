"""V: frame <-> latent."""
