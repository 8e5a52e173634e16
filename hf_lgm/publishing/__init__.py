"""What comes out: sets, results, cards, and the repository they go to."""
