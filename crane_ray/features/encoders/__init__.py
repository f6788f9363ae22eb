"""One file an encoder; the file's name is the encoder's name on the command line.

Each defines ``CARD`` (an `EncoderCard`) and ``build() -> torch.nn.Module``, a network with
whatever initial weights that maps (B, 3, S, S) normalised float images to (B, D) features, and
optionally ``prepare_state(state) -> state`` that takes the published weight files' key names.

A file may instead define ``plugin(argument)`` and return something with these from it; its
encoders are then called ``file:argument`` (``timm:resnet18``). Where a card has
``build_arguments``, ``build`` gets them by name.
"""
