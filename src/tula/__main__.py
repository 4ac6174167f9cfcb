"""``python -m tula`` is the ``tula`` command."""

from tula.cli.main import main

if __name__ == "__main__":
    main()
