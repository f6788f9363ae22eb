"""Tiled TIFF and Aperio SVS without OpenSlide: layout, tile codecs, placement, tile cache."""
