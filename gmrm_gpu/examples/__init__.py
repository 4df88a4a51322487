"""Programs to copy and change; each stands alone and needs nothing else of this package."""
