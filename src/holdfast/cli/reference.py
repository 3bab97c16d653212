"""Names of images as people write them, split as the API wants them."""

from __future__ import annotations


def split(reference: str) -> tuple[str, str]:
    """Repository, and tag or digest (`""` when there is none): `x/y:1` gives `("x/y", "1")`."""
    repository, digested, digest = reference.partition("@")
    colon = repository.rfind(":")
    if colon > repository.rfind("/"):
        repository, tag = repository[:colon], repository[colon + 1 :]
    else:
        tag = ""
    return repository, digest if digested else tag


def with_tag(reference: str) -> str:
    """The reference with `:latest` where it names neither tag nor digest."""
    return reference if split(reference)[1] else f"{reference}:latest"


def full(repository: str) -> str:
    """The repository with its registry: `alpine` gives `docker.io/library/alpine`.

    Source: distribution/reference, ParseNormalizedNamed: a first part with a dot or a colon, or `localhost`, is a host.
    """
    host, slash, path = repository.partition("/")
    if not slash or not (set(host) & {".", ":"} or host == "localhost"):
        host, path = "docker.io", repository
    if host in {"docker.io", "index.docker.io"}:
        host, path = "docker.io", path if "/" in path else f"library/{path}"
    return f"{host}/{path}"


def full_reference(reference: str) -> str:
    """The whole reference with registry and tag: `docker.io/library/alpine:latest`."""
    repository, tag = split(with_tag(reference))
    return f"{full(repository)}{'@' if tag.startswith('sha256:') else ':'}{tag}"
