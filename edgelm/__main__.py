"""``python -m edgelm``."""

from edgelm.cli.main import main

if __name__ == "__main__":
    main()
