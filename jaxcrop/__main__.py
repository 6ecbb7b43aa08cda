"""`jaxcrop VERB …`, the same as `python -m jaxcrop.VERB …`."""

import importlib
import sys

VERBS = {
    "train": ("jaxcrop.train", "train a model of a region's crops, then evaluate it"),
    "evaluate": ("jaxcrop.evaluate", "score a trained model on its region's chips"),
    "predict": ("jaxcrop.predict", "turn a scene into a crop map"),
    "sweep": ("jaxcrop.sweep", "compute what is missing of a study of many runs"),
    "report": ("jaxcrop.report", "write a sweep's report: page, figures and tables"),
    "recommend": ("jaxcrop.recommend", "rank pretrained weights on a region by cheap probes"),
    "data": ("jaxcrop.data.__main__", "build a dataset's records, or draw a synthetic region"),
    "weights": ("weights_convert.__main__", "fetch, convert and verify pretrained weights"),
}


def main() -> None:
    """Run the verb that the first argument names, with the others."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in VERBS:
        importlib.import_module(VERBS[verb][0]).main(sys.argv[2:])
        return
    lines = ["usage: jaxcrop VERB [--help] ...", ""]
    lines += [f"  {name:<10}{summary}" for name, (_, summary) in VERBS.items()]
    helped = verb in ("-h", "--help")
    print("\n".join(lines), file=sys.stdout if helped else sys.stderr)
    sys.exit(0 if helped else 2)


if __name__ == "__main__":
    main()
