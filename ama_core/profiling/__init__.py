"""How fast training and scoring run here (`speed`), beside a plain `reference`."""
