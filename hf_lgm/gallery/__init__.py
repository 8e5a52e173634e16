"""A page to look at sets of images: what it shows, the page itself, the same as an app and as a Space."""
