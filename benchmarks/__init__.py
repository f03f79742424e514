"""Frostline and its peers, measured side by side: ``make bench``; one file per row of the table."""
