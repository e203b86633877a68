"""The parts of the page that trains: its form, the run that is looked at, the list of runs, and the paper's first row."""
