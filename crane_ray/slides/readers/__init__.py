"""One file a reader; each has ``open_reader(path) -> SlideReader`` and is named by its file's name."""
