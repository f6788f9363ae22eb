"""One file a layout of slide arrays; each defines ``FORMAT``, a `SlideFormat`."""
