"""What nets learn from: cases in memory or on disk, teachers that label them, generators of cases that make more."""
