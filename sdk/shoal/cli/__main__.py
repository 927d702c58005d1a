"""The same command as `shoal`, for `python -m shoal.cli`."""

from shoal.cli.main import main

if __name__ == "__main__":
    main()
