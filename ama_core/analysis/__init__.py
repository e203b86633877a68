"""What pages show of a trained model: score densities, latent maps, nearest training images, what R depends on, model card."""
