"""The shallow net, and its fast path for predictions."""
