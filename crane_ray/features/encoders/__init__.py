"""One file an encoder; the file's name is the encoder's name on the command line.

Each defines ``CARD`` (an `EncoderCard`) and ``build() -> torch.nn.Module``, a network with
whatever initial weights that maps (B, 3, S, S) normalised float images to (B, D) features, and
optionally ``prepare_state(state) -> state`` that takes the published weight files' key names.
"""
