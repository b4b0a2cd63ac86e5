"""Records of what imgdata wrote and computed when they were made, and what makes them anew; see `README.md`."""
