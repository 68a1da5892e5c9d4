"""What nets learn from: cases in memory or on disk, teachers that label them, generators that make more."""
