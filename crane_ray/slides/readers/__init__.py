"""One file a reader; each has ``detects(path)`` and ``open_reader(path) -> SlideReader``."""
