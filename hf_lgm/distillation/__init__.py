"""The method: the objectives, the images, and what a step needs."""
