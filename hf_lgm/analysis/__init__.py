"""What a set of images shows of the backbones that look at it: numbers, and plots of them in `plots/`."""
