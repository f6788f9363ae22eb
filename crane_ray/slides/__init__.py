"""A slide file -> pixels, tissue, patch coordinates. Knows neither torch nor ray."""
