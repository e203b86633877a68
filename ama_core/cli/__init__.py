"""The command line, `python -m ama_core`: one file a subject, each command's arguments beside its function."""
