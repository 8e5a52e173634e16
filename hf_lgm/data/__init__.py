"""Images in: datasets, columns, single images, random views."""
