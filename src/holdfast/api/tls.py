"""TLS for TCP: the client must show a certificate too. The engine's API is root; there is no TCP without this."""

from __future__ import annotations

import ssl

from holdfast.errors import InvalidParameter


def server_context(*, ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """Make the context from three PEM files. Raises InvalidParameter if one is not given or cannot be used."""
    missing = [
        name for name, value in (("tls_ca", ca), ("tls_certificate", certificate), ("tls_key", key)) if not value
    ]
    if missing:
        raise InvalidParameter(f"listening on TCP needs TLS with client certificates: {', '.join(missing)} not set")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidParameter(f"TLS files {certificate}, {key}, {ca}: {error}") from error
    return context


def _no_password() -> str:
    """Refuse a key with a password: OpenSSL would ask for it on the terminal."""
    raise ValueError("the private key must not be protected by a password")
