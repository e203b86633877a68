"""Anomaly detectors: `base` states the contract, `registry` lists them; each detector is one file or one folder."""
