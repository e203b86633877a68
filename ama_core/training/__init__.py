"""The training `loop` of every detector, what a detector writes for it (`trainer`), and learning rates (`schedule`)."""
