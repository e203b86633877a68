"""The lesson "Why raw scores fail": one file a step, each with what it shows, its take-away, and its chart."""
