"""One file a segmenter; each has ``segment(reader, params) -> TissueContours``."""
