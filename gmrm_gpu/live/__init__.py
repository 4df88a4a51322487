"""Analysis while the experiment runs: frame by frame, from the past alone."""
