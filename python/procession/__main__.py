"""`python -m procession`: run a program with `multiprocessing` answered by this package."""

import sys

from procession._alias import install
from procession._run import run

install()
run(sys.argv[1:])
