"""How well a detector does: `metrics` with their intervals, and the `protocol` that says who is tested against whom."""
