"""`python -m weights_convert list|fetch|convert|verify|export`."""

import argparse
import sys
from pathlib import Path

from jaxcrop.cli import exit_on_input_error
from jaxcrop.errors import InputError
from jaxcrop.weights.catalogue import CATALOGUE
from weights_convert.export import LAYOUTS
from weights_convert.listing import as_json, listing, select


def main(arguments: list[str] | None = None) -> None:
    """Run one command; exits with 1 where `verify` finds a difference, 2 for bad input."""
    options = _parser().parse_args(arguments)
    with exit_on_input_error():
        options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m weights_convert",
        description="Published PyTorch backbones in Flax, and back, without PyTorch.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="list the published weights")
    command.add_argument("--family", help="those of one family only")
    command.add_argument("--architecture", help="those of one architecture only")
    command.add_argument("--json", action="store_true", help="as JSON, with every column")
    command.set_defaults(command=_list)

    command = commands.add_parser("fetch", help="download, check and convert published weights")
    command.add_argument("name", metavar="NAME", help="one of the names that `list` prints")
    command.set_defaults(command=_fetch)

    like = argparse.ArgumentParser(add_help=False)
    like.add_argument(
        "--like",
        metavar="NAME",
        help="a published set that the file is like in family, bands and scale, where the file "
        "cannot tell",
    )
    command = commands.add_parser(
        "convert", parents=[like], help="convert a .pth, .pt or .safetensors file"
    )
    command.add_argument("source", metavar="IN", type=Path, help="the PyTorch or safetensors file")
    command.add_argument("converted", metavar="OUT", type=Path, help="the folder to make")
    command.set_defaults(command=_convert)

    command = commands.add_parser(
        "verify", parents=[like], help="compare converted weights with their source"
    )
    command.add_argument("source", metavar="NAME|IN", help="fetched weights by name, or a file")
    command.add_argument(
        "converted", metavar="OUT", type=Path, nargs="?", help="the folder it was converted to"
    )
    command.add_argument(
        "--against",
        choices=["torch"],
        help="run the original model and ours on one image: every map and the input gradient",
    )
    command.add_argument(
        "--size", type=int, default=256, help="side of that image in pixels (default: 256)"
    )
    command.set_defaults(command=_verify)

    command = commands.add_parser("export", help="write a run's weights as a PyTorch state dict")
    command.add_argument("source", metavar="RUN", type=Path, help="a run, or converted weights")
    command.add_argument("destination", metavar="OUT.safetensors", type=Path)
    command.add_argument(
        "--layout",
        required=True,
        choices=list(LAYOUTS),
        help="whose names to use; smp is a whole U-Net, the others the backbone (satlas with FPN)",
    )
    command.set_defaults(command=_export)
    return parser


def _list(options: argparse.Namespace) -> None:
    entries = select(options.family, options.architecture)
    print(as_json(entries) if options.json else listing(entries))


def _fetch(options: argparse.Namespace) -> None:
    from jaxcrop.weights.download import fetch  # noqa: PLC0415

    print(fetch(options.name))


def _convert(options: argparse.Namespace) -> None:
    from weights_convert.convert import convert  # noqa: PLC0415

    manifest = convert(options.source, options.converted, options.like)
    likeness = "is" if manifest["published"] else "taken for one like"
    print(
        f"{options.converted}: {manifest['architecture']}, {manifest['layout']}, "
        f"{likeness} {manifest['like']}: bands {' '.join(manifest['bands'])}, licence "
        f"{manifest['licence']}, {len(manifest['dropped'])} entries left out (see manifest.json)"
    )


def _verify(options: argparse.Namespace) -> None:
    source, converted = Path(options.source), options.converted
    if options.source in CATALOGUE and not source.exists():
        from jaxcrop.weights.download import downloaded, find  # noqa: PLC0415

        source = downloaded(options.source)
        converted = converted or find(options.source)
    if options.against:
        _verify_against_torch(source, options)
        return
    if converted is None:
        raise InputError(f"name the folder that {source} was converted to, or --against torch")
    from weights_convert.verify import verify  # noqa: PLC0415

    rows = verify(source, converted)
    for row in rows:
        print(f"{row.difference:<12.3g}{row.parameter}{row.note and f'  ({row.note})'}")
    differing = sum(row.difference > 0 for row in rows)
    largest = max((row.difference for row in rows), default=0.0)
    print(f"{largest:<12.3g}total: {differing} of {len(rows)} parameters differ")
    if differing:
        sys.exit(1)


def _verify_against_torch(source: Path, options: argparse.Namespace) -> None:
    from weights_convert.oracle import verify_against_torch  # noqa: PLC0415

    like = options.like or (options.source if options.source in CATALOGUE else None)
    rows = verify_against_torch(source, like, size=options.size)
    print(f"{'':<16}{'shape':<22}{'size':>10}{'difference':>12}{'relative':>10}{'allowed':>9}")
    for row in rows:
        print(
            f"{row.what:<16}{row.shape!s:<22}{row.size:>10.3g}{row.difference:>12.2g}"
            f"{row.relative:>10.1g}{row.tolerance:>9.0e}{'' if row.passes else '  differs'}"
        )
    if not all(row.passes for row in rows):
        sys.exit(1)


def _export(options: argparse.Namespace) -> None:
    from weights_convert.export import export  # noqa: PLC0415

    written = export(options.source, options.destination, options.layout)
    print(f"{options.destination}: {written.tensors} tensors in the names of {options.layout}")
    for note, names in (("made up", written.invented), ("left out", written.left_out)):
        if names:
            print(f"{note}: {', '.join(names)}")


if __name__ == "__main__":
    main()
