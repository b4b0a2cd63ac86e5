"""Recipes, and what they mean for each sample: (recipe, image sizes, seed, epoch, positions) -> parameters."""
