"""``crane-ray encoders``."""

import click

from crane_ray.features.encoder import EncoderCard

EPILOG = """\b
Examples:
  crane-ray encoders
  crane-ray extract --work work --encoder uni_v1 --encoder timm:resnet18

\b
Gated models are asked for on their page; then `hf auth login`, or the file with --weights FILE, or
in the environment variable CRANE_RAY_{ENCODER}_WEIGHTS."""


@click.command(name="encoders", epilog=EPILOG)
def command() -> int:
    """List the encoders: their vectors, inputs, scales, and where their weights come from."""
    from rich.table import Table

    from crane_ray.cli.console import console
    from crane_ray.features.cards import describe_encoders

    table = Table(title="encoders", title_justify="left")
    for column in ("name", "features", "input", "trained at", "weights"):
        table.add_column(column, overflow="fold")
    for name, card in describe_encoders():
        if card is None:
            table.add_row(name, "any", "any", "", "a timm name, or hf-hub:ORG/NAME")
            continue
        scales = " or ".join(f"{mpp:g}" for mpp in card.recommended_mpp)
        table.add_row(
            name,
            f"{card.dim} ({card.output})",
            f"{card.input_size_px} px",
            f"{scales} um/px" if scales else "any scale",
            _weights(card),
        )
    console.print(table)
    return 0


def _weights(card: EncoderCard) -> str:
    words = list(card.downloads)
    if card.hub is not None:
        words.append(f"hf-hub:{card.hub.repo}" + (" (gated)" if card.hub.gated else ""))
    words += [f"${variable}" for variable in card.environment]
    return ", ".join(words)
