"""Sections of configuration files: the certificates, and what else a scenario is about."""

from __future__ import annotations

from collections.abc import Mapping

from tests.kernel.guest.certificates import certificate, privateKey


def identity(name: str, *, kind: str = "x509") -> dict[str, str]:
    """
    Write the keys that name a certificate of one's own.

    @param name: its name.
    @param kind: C{x509}, or C{x509.pq} for a post-quantum one.
    @return: the keys of a section.
    """
    return {f"{kind}.certificate": certificate(name), f"{kind}.private_key": privateKey(name)}


def section(name: str, *parts: Mapping[str, str]) -> str:
    """
    Write a section of a configuration.

    @param name: its name.
    @param parts: its keys.
    @return: the text.
    """
    keys = {key: value for part in parts for key, value in part.items()}
    return "".join([f"[{name}]\n", *(f"{key}={value}\n" for key, value in keys.items())])


def roles(client: Mapping[str, str], server: Mapping[str, str], truststore: str = "ca") -> str:
    """
    Write the sections of both roles.

    @param client: keys of the client's, beside the trust store.
    @param server: keys of the server's, beside the trust store.
    @param truststore: the certificate that both trust.
    @return: the text.
    """
    trusted = {"x509.truststore": certificate(truststore)}
    return "".join(
        section(f"authenticate.{role}", trusted, keys)
        for role, keys in (("client", client), ("server", server))
    )
