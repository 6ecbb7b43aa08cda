"""`python -m weights_convert convert|verify|fetch|list`."""

import argparse
import sys
from pathlib import Path

from jaxcrop.cli import exit_on_input_error
from jaxcrop.weights.catalogue import BAND_INPUT, CATALOGUE


def main(arguments: list[str] | None = None) -> None:
    """Run one command; exits with 1 where `verify` finds a difference, 2 for bad input."""
    options = _parser().parse_args(arguments)
    with exit_on_input_error():
        options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m weights_convert",
        description="Convert published PyTorch backbones to Flax without PyTorch.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("convert", help="convert a .pth or .safetensors file")
    command.add_argument("source", metavar="IN", type=Path, help="the PyTorch or safetensors file")
    command.add_argument("converted", metavar="OUT", type=Path, help="the folder to make")
    command.add_argument(
        "--family",
        choices=sorted(BAND_INPUT),
        help="what the weights were pretrained on, where the file cannot tell",
    )
    command.set_defaults(command=_convert)

    command = commands.add_parser("verify", help="compare converted weights with their source")
    command.add_argument("source", metavar="IN", type=Path, help="the PyTorch or safetensors file")
    command.add_argument("converted", metavar="OUT", type=Path, help="the converted folder")
    command.set_defaults(command=_verify)

    command = commands.add_parser("fetch", help="download and convert published weights")
    command.add_argument("name", metavar="NAME", help="one of the names that `list` prints")
    command.set_defaults(command=_fetch)

    command = commands.add_parser("list", help="list the published weights")
    command.set_defaults(command=_list)
    return parser


def _convert(options: argparse.Namespace) -> None:
    from weights_convert.convert import convert  # noqa: PLC0415

    manifest = convert(options.source, options.converted, options.family)
    print(
        f"{options.converted}: {manifest['architecture']}, {manifest['layout']}, "
        f"{manifest['in_channels']} channels, licence {manifest['licence']}, "
        f"{len(manifest['dropped'])} entries left out (see manifest.json)"
    )


def _verify(options: argparse.Namespace) -> None:
    from weights_convert.verify import verify  # noqa: PLC0415

    rows = verify(options.source, options.converted)
    for row in rows:
        print(f"{row.difference:<12.3g}{row.parameter}{row.note and f'  ({row.note})'}")
    differing = sum(row.difference > 0 for row in rows)
    largest = max((row.difference for row in rows), default=0.0)
    print(f"{largest:<12.3g}total: {differing} of {len(rows)} parameters differ")
    if differing:
        sys.exit(1)


def _fetch(options: argparse.Namespace) -> None:
    from jaxcrop.weights.download import fetch  # noqa: PLC0415

    print(fetch(options.name))


def _list(_: argparse.Namespace) -> None:
    for entry in CATALOGUE.values():
        print(
            f"{entry.name:<26}{entry.family:<10}{entry.in_channels:>2} channels  "
            f"{entry.licence:<14}{entry.url}"
        )


if __name__ == "__main__":
    main()
