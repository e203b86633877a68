"""Runs: what is asked (`spec`), the folder that holds one (`folder`), carrying it out (`execute`), and the `queue`."""
