"""python -m tools.published CHECKPOINT OUT KIND: make the folder OUT; KIND is one of those in kinds.py."""

import argparse
import logging
import sys
from pathlib import Path

from .kinds import KINDS, write_published


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.published", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("kind", choices=KINDS)
    args = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser has a word for every node
    write_published(args.checkpoint, args.out, args.kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
