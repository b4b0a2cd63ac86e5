"""What the loader is made of: options, one batch planned, bad images replaced, an epoch of batches."""
