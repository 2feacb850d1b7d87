"""python -m ciper: the command line, stopped in one line at any time."""

import sys


def main() -> None:
    """The command `ciper`, whose imports may be interrupted too."""
    try:
        from .cli import main
    except KeyboardInterrupt:
        print("ciper: error: stopped", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    main()
