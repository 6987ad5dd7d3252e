"""Networks: backbones, heads, losses, training and file formats."""
