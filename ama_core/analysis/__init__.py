"""What pages show of a trained model: score densities, latent maps, nearest training images, what R answers to, model card."""
