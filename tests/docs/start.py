"""Runs a program with a start method chosen for it: `start.py METHOD SCRIPT`."""

import sys

import procession
from procession._run import run

procession.set_start_method(sys.argv[1])
run(sys.argv[2:])
