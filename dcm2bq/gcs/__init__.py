"""Cloud Storage: names, ranged reads of one generation, listings, and the folder of a run."""
