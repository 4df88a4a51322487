"""Readers of the files that microscopes and cameras write, and what these say of the recording."""
