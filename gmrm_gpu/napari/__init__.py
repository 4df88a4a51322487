"""Plugin for napari: opens results, and analyses the movie of an open layer. napari finds it by napari.yaml."""
