"""Models in: any vision model as one function from images to features."""
