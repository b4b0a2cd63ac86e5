"""What is there -> figures: how far pixels are from torchvision's."""
