"""Small splits: decoded once, kept as one array in the host's memory or on the device, augmented as whole batches."""
