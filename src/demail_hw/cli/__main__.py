"""``python -m demail_hw.cli``."""

from demail_hw.cli.main import main

main()
