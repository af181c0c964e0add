"""`python -m nightcap.cli`, for those who have no `kubectl-nightcap` on their PATH."""

from nightcap.cli.program import main

main()
