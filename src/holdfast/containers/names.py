"""Names of containers: what is allowed, and names for those who give none."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from holdfast.errors import InvalidParameter

_ALLOWED = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ADJECTIVES = _words(
    "agile amber apt bold brave breezy bright brisk calm candid careful cheerful clear clever cosy curious daring deft "
    "eager earnest easy fearless fine fond frank friendly gallant gentle glad golden graceful hardy hopeful humble "
    "fair jolly jovial keen kind lively loyal lucid lucky mellow merry mild modest neat nimble noble patient plucky "
    "proud quick quiet ready serene sharp silver sincere smart snug sober stable steady stoic sturdy sunny swift "
    "polite tender thoughtful tidy trusty upbeat valiant vivid warm wise witty zealous"
)

_SURNAMES = _words(
    "abel ampere archimedes babbage bell boole bohr boyle brahe cantor cauchy church copernicus coulomb curie dalton "
    "darwin davy descartes dirac edison einstein euclid euler faraday fermat fermi feynman fourier franklin "
    "galileo galois gauss germain goodall hamilton heisenberg hertz hilbert hooke hopper hubble huygens joule "
    "kepler khayyam klein kovalevskaya lagrange laplace leibniz linnaeus lovelace mandelbrot maxwell meitner mendel "
    "mendeleev mirzakhani napier newton nobel noether ohm pascal pasteur pauling planck poincare ptolemy pythagoras "
    "ramanujan riemann ritchie rontgen rutherford sagan shannon tesla torvalds turing volta watt wiles wright hypatia"
)


def check(name: str) -> str:
    """Give `name` without its leading slash.

    Raises InvalidParameter in Docker's words. Source: Docker Engine API, operationId ContainerCreate, `name`.
    """
    bare = name.removeprefix("/")
    if not _ALLOWED.fullmatch(bare):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


def make(taken: Callable[[str], bool]) -> str:
    """Make up a name, an adjective and a scientist, that `taken` does not know."""
    while True:
        name = f"{random.choice(_ADJECTIVES)}_{random.choice(_SURNAMES)}"
        if taken(name):
            name += str(random.randrange(10_000))
        if not taken(name):
            return name
