"""`imgdata doctor`: this machine and a dataset -> what holds loading back, and what would help."""
