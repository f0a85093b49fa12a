"""`python -m mlaas.cli`."""

from . import main

main()
