"""Sub-sampled movies: from masks, tables and scans, and the sparse format of this package."""
