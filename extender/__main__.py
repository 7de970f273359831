"""``python -m extender`` is ``gpu-extender``."""

from extender.cli import main

main()
