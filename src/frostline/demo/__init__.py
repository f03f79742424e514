"""A demo that needs no download: a corpus from the standard library and a small real model."""
