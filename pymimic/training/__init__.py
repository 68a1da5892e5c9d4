"""Training: the loop, what it moves, where it stands; and the deep net that teaches."""
