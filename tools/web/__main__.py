"""Write the recogniser as a folder of static files, which any web server can serve; or serve it.

    python -m tools.web OUT [MODEL]
    python -m tools.web --serve OUT [--tls]

Reads   MODEL, a folder in the fast layout: int8 or int4 graphs for WebAssembly, fp32, fp16 or q4f16 ones for WebGPU, or
        both; of the full size, `python -m cohere_lite.export CHECKPOINT MODEL --target web`. The demonstration model is
        always there, as the small one
Writes  OUT: index.html, its modules, onnxruntime-web, models.json and the models
Needs   npm, and pip install '.[export]'

--serve answers on this machine alone, http://localhost:8000; with --tls in the whole house, https://...:8443, as
microphones, threads and storage need (the program openssl makes a certificate, which browsers ask about once).
"""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.web", description=about, allow_abbrev=False)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write, or to serve")
    parser.add_argument("model", type=Path, metavar="MODEL", nargs="?", help="a model in the fast layout")
    parser.add_argument("--serve", action="store_true", help="serve OUT, which was written before")
    parser.add_argument("--tls", action="store_true", help="with --serve: https, for other devices in the house")
    parser.add_argument("--port", type=int, help="with --serve (default: 8000; with --tls 8443)")
    args = parser.parse_args(argv)
    try:
        if args.serve:
            from .serve import serve

            if args.model:
                parser.error("--serve takes a folder that was written before, and no model")
            serve(args.out, args.tls, args.port)
        else:
            from .build import build

            if args.tls or args.port is not None:
                parser.error("--tls and --port go with --serve")
            build(args.out, args.model)
    except ImportError as error:
        print(f"error: {error}; writing the page needs: pip install '.[export]'", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
