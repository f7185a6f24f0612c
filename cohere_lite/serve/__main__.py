"""`python -m cohere_lite.serve`: the options. --help needs nothing but the standard library."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from ..cli.options import _named, _provider
from ..errors import CohereLiteError, OptionError
from .log import log_to_stderr

_KEY_VARIABLE = "COHERE_LITE_API_KEY"
_EPILOG = """\
For OpenAI's clients the base URL is http://HOST:PORT/v1, with any model name,
and any key unless --api-key is given. People open http://HOST:PORT/ and choose
a file or speak. Browsers give pages a microphone at localhost and over https
only: for other devices put a proxy with a certificate in front.

Only this machine can reach the service unless --host says otherwise. Then use
--api-key; Wyoming has no keys by design, so keep its port inside your home.
"""


def main(argv: list[str] | None = None) -> int:
    """Serves until SIGTERM or Ctrl-C. Returns 1 or 2 where it cannot start."""
    args = _parser().parse_args(argv)
    log_to_stderr()
    try:
        try:
            from .server import serve
        except ImportError as error:
            if isinstance(error.__cause__, KeyboardInterrupt):  # in the middle of a module in C
                raise error.__cause__ from None
            raise OptionError(f"the service needs more: pip install 'cohere-lite[serve]' ({error})") from error
        asyncio.run(serve(args, args.api_key or os.environ.get(_KEY_VARIABLE) or None))
    except (CohereLiteError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError) else 1
    except KeyboardInterrupt:  # before it served
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cohere_lite.serve",
        description="Serve a model over HTTP as OpenAI does, to people's browsers, and to Home Assistant.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-l", "--language", default="en", metavar="CODE", help="where a client names none (default: en; auto)")
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all (default: 127.0.0.1)")
    add("--port", type=_port, default=8000, help="0 for any that is free (default: 8000)")
    add("--wyoming", metavar="URI", help="serve Home Assistant, too: tcp://0.0.0.0:10300")
    add("--zeroconf", metavar="NAME", help="announce the Wyoming service under this name in the local network")

    add = parser.add_argument_group("who may use it, and how much").add_argument
    add("--api-key", type=_key, metavar="KEY", help=f"that clients must send (default: the variable {_KEY_VARIABLE})")
    add(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this origin use the service, as https://example.org or app://obsidian.md; * for all",
    )
    add("--max-upload", type=_positive, default=512, metavar="MB", help="larger files are refused (default: 512)")
    add("--max-queue", type=_positive, default=64, metavar="N", help="recordings at once, live ones too (default: 64)")
    add("--timeout", type=_positive, default=600, metavar="S", help="from a request to its answer (default: 600)")

    add = parser.add_argument_group("model").add_argument
    add("-m", "--model", type=_named, metavar="FOLDER", help="as of python -m cohere_lite (default: a demonstration)")
    add("--precision", metavar="NAME", help="of several: int8, q4, fp16, ...")
    add("--provider", type=_provider, default="cpu", metavar="NAME", help="cpu, cuda, webgpu, ... (default: cpu)")
    add("--threads", type=int, metavar="N", help="CPU threads of the model (default: the cores available)")
    add("--batch-size", type=int, metavar="N", help="pieces decoded at once (default: 4)")
    add("--cache", type=_named, metavar="FOLDER", help="for prepared copies of large models, or 'off'")
    return parser


def _key(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; leave the option out for a service without a key")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 65535")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
