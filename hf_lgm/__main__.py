"""`python -m hf_lgm` is `hf-lgm`."""

from .cli.main import main

main()
