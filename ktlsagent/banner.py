"""What is said when requests are served."""

from __future__ import annotations

from twisted.logger import Logger

from ktlsagent import __version__
from ktlsagent.interfaces import IHandshakeKernel, IKeyrings
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES


def sayReady(
    log: Logger,
    kernel: IHandshakeKernel,
    keyrings: IKeyrings,
    suites: frozenset[str],
    workers: int = 1,
) -> None:
    """
    Say that requests are served, and what may be in their way.

    @param log: where to say it.
    @param kernel: the handshake family.
    @param keyrings: the process keyring.
    @param suites: the cipher suites that the running kernel takes.
    @param workers: how many processes serve them.
    """
    restriction = keyrings.restriction()
    if restriction is not None:
        log.warn("{restriction}", restriction=restriction)
    others = kernel.otherListeners()
    if others:
        log.warn(
            "another handshake agent listens in this network namespace (netlink port "
            "{ports}, mostly its process id): requests are shared between the two; stop one "
            "of them",
            ports=", ".join(str(port) for port in others),
        )
    log.info(
        "ktlsagent {version} ready: kTLS takes {suites}{workers}",
        version=__version__,
        suites=", ".join(name for name in CIPHER_SUITES if name in suites),
        workers=f"; {workers} workers" if workers > 1 else "",
    )
