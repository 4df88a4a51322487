"""What an analysis survives: damaged and hostile input, kills, degenerate fits; `scale.cases` says how many of each."""
