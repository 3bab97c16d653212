#!/usr/bin/python3
"""Fetches the address that it is given; fails unless the answer is 200."""

import sys
from urllib.request import urlopen

with urlopen(sys.argv[1], timeout=5) as answer:
    sys.stdout.write(answer.read().decode())
