"""The command line, `python -m ama_core`."""
