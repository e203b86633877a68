"""From untrusted files to verdicts: `check` for a page, `table` for any number of images, `report` for one HTML file."""
