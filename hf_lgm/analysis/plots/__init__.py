"""The plots, one module each, beside the numbers of the same name."""
