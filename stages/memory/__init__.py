"""M: (latent, action) -> distribution of the next latent."""
