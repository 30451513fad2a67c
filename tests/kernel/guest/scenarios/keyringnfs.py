"""NFS whose certificate and private key are keys of the kernel, named by mount options."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Final

import keyutils

from tests.kernel.guest import certificates, ktls, nvme
from tests.kernel.guest.agents import KTLSAGENT, TLSHD, Agent, configuration
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import LOGS, Lab
from tests.kernel.guest.nfs import readFile, refusal, writeFile
from tests.kernel.guest.waiting import expect

OLDER_TLSHD: Final = "tlshd-1.0.0"
"""The one that is borrowed from trixie: 1.4.0 cannot use keys from a keyring."""

_OLDER_PATH: Final = ("env", "PATH=/opt/trixie/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin")

_DIRECTORY: Final = LOGS.parent / "keyring"
_NAME: Final = "keyring.lab"

_NEW_KEYS: Final = {
    "ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("-newkey", "rsa:2048"),
}

_FORMATS: Final = {
    "pkcs8": ("-outform", "DER"),
    "traditional": ("-traditional", "-outform", "DER"),
    "pem": ("-outform", "PEM"),
}


def _openssl(*arguments: str) -> None:
    """
    Run openssl.

    @param arguments: its command.
    """
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class _Keys:
    """
    A certificate that no file of a configuration names, and its key, in C{.nfs}.

    @ivar ring: the keyring.
    """

    def __init__(self, algorithm: str) -> None:
        """
        Have it issued by the lab's CA.

        @param algorithm: C{ec} or C{rsa}.
        """
        self.ring = nvme.keyrings()[".nfs"]
        self._numbers = itertools.count(1)
        _DIRECTORY.mkdir(exist_ok=True)
        self.certificateFile = _DIRECTORY / "certificate.pem"
        self.keyFile = _DIRECTORY / "key.pem"
        _openssl(
            *("req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={_NAME}"),
            *("-CA", certificates.certificate("ca"), "-CAkey", certificates.privateKey("ca")),
            *("-addext", f"subjectAltName=DNS:{_NAME}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "keyUsage=critical,digitalSignature"),
            *("-addext", "extendedKeyUsage=clientAuth"),
            *(*_NEW_KEYS[algorithm], "-keyout", str(self.keyFile), "-out"),
            str(self.certificateFile),
        )

    def add(self, name: str, payload: bytes) -> int:
        """
        Put a key into the keyring.

        @param name: what it is.
        @param payload: its content.
        @return: its serial.
        """
        # A name that is there already would mean to change that key.
        description = f"nfs:{name}-{next(self._numbers)}"
        serial: int = keyutils.add_key(description.encode(), payload, self.ring, b"user")
        return serial

    def certificate(self, *, pem: bool = False) -> int:
        """
        Put the certificate there.

        @param pem: whether as PEM; else as DER.
        @return: its serial.
        """
        out = _DIRECTORY / "certificate.out"
        form = "PEM" if pem else "DER"
        _openssl("x509", "-in", str(self.certificateFile), "-outform", form, "-out", str(out))
        return self.add(f"certificate-{form}", out.read_bytes())

    def privateKey(self, form: str) -> int:
        """
        Put the private key there.

        @param form: C{pkcs8}, C{traditional} or C{pem}.
        @return: its serial.
        """
        out = _DIRECTORY / "key.out"
        _openssl("pkey", "-in", str(self.keyFile), "-out", str(out), *_FORMATS[form])
        return self.add(f"key-{form}", out.read_bytes())

    def close(self) -> None:
        """Take everything out again."""
        keyutils.clear(self.ring)


def _options(certificate: int | None, key: int | None) -> list[str]:
    """
    Write mount options.

    @param certificate: the certificate's serial, if it is to be named.
    @param key: the key's serial, if it is to be named.
    @return: the server's name and the options.
    """
    words = ["server.lab"]
    if certificate is not None:
        words.append(f"cert_serial={certificate}")
    if key is not None:
        words.append(f"privkey_serial={key}")
    return words


def _stage(lab: Lab, algorithm: str, server: str, text: str) -> tuple[Host, Agent, Agent, _Keys]:
    """
    Make two hosts with agents, and an NFS server that demands certificates.

    @param lab: the stage.
    @param algorithm: of the keyring's certificate.
    @param server: the server's agent.
    @param text: the configuration of the client's agent.
    @return: the client, the agents of the server and the client, and the keys.
    """
    serverHost, clientHost = lab.twoHosts()
    keys: _Keys = lab.closing(_Keys(algorithm))
    older = server == OLDER_TLSHD
    serverAgent = nvme.agent(
        lab,
        serverHost,
        TLSHD if older else server,
        configuration(),
        _OLDER_PATH if older else (),
    )
    clientAgent = nvme.agent(lab, clientHost, text=text)
    lab.listening()
    lab.server(serverHost, "mtls")
    return clientHost, serverAgent, clientAgent, keys


def mounts(lab: Lab, algorithm: str, server: str) -> None:
    """
    Mount with a certificate from the keyring, in all formats; it wins over the
    configured one.

    @param lab: the stage.
    @param algorithm: C{ec} or C{rsa}.
    @param server: the server's agent.
    """
    client, serverAgent, clientAgent, keys = _stage(lab, algorithm, server, configuration())
    before = ktls.statistics(client)
    # tlshd knows DER only; here the client is ours, which knows PEM, too.
    for number, form in enumerate(_FORMATS, 1):
        options = _options(keys.certificate(pem=form == "pem"), keys.privateKey(form))
        with lab.mounted(client, "4.2", "mtls", *options) as mount:
            written = writeFile(mount.path / "data", 1)
            expect("SHA-256", readFile(mount.path / "data"), written)
            lab.facts[f"mount-s {form}"] = round(mount.seconds, 2)
        expect("handshake", clientAgent.waitForHandshake(number).outcome, "ok")
        if serverAgent.kind == KTLSAGENT:
            line = serverAgent.waitForHandshake(number)
            expect("the client's subject", line.fields["subject"], f"CN={_NAME}")
    after = ktls.statistics(client)
    expect("TlsDecryptError", after["TlsDecryptError"], before["TlsDecryptError"])
    expect("kTLS was installed", after["TlsTxSw"] >= before["TlsTxSw"] + len(_FORMATS), True)
    lab.recordHandshakes()


def oneAlone(lab: Lab) -> None:
    """
    Only the certificate, or only the key, is from the keyring; the other one is the
    configured one, which belongs to it.

    @param lab: the stage.
    """
    files = _DIRECTORY / "certificate.pem", _DIRECTORY / "key.pem"
    own = configuration()
    for old, new in zip(
        (certificates.certificate("client"), certificates.privateKey("client")), files, strict=True
    ):
        own = own.replace(old, str(new))
    client, serverAgent, _, keys = _stage(lab, "ec", KTLSAGENT, own)
    alone = (_options(keys.certificate(), None), _options(None, keys.privateKey("pkcs8")))
    for number, options in enumerate(alone, 1):
        with lab.mounted(client, "4.2", "mtls", *options):
            line = serverAgent.waitForHandshake(number)
            expect("the client's subject", line.fields["subject"], f"CN={_NAME}")


def refused(lab: Lab) -> None:
    """
    Keys that do not belong together, are something else, or may not be read.

    @param lab: the stage.
    """
    client, _, agent, keys = _stage(lab, "ec", KTLSAGENT, configuration())
    certificate, key = keys.certificate(), keys.privateKey("pkcs8")
    other = _DIRECTORY / "other.der"
    _openssl(
        "pkey", "-in", certificates.privateKey("client"), "-outform", "DER", "-out", str(other)
    )
    hidden = keys.add("hidden", Path(other).read_bytes())
    keyutils.link(keys.ring, keyutils.KEY_SPEC_PROCESS_KEYRING)
    nvme.hide(hidden)
    for number, (what, options, code) in enumerate(
        (
            (
                "a key of another certificate",
                _options(certificate, keys.add("other", other.read_bytes())),
                "key-mismatch",
            ),
            (
                "a certificate that is none",
                _options(keys.add("junk", b"junk"), key),
                "key-unusable",
            ),
            ("a private key that is none", _options(certificate, certificate), "key-unusable"),
            ("a key that may not be read", _options(certificate, hidden), "key-forbidden"),
        ),
        1,
    ):
        expect(f"mount with {what}", refusal(client, "4.2", "mtls", *options), "EACCES")
        line = agent.waitForHandshake(number)
        lab.facts[what] = line.fields["reason"]
        expect(f"code for {what}", line.fields["code"], code)
    keyutils.revoke(key)
    # The kernel itself looks at that.
    lab.facts["a revoked key"] = refusal(client, "4.2", "mtls", *_options(certificate, key))
    expect("mount with a revoked key", lab.facts["a revoked key"] != "mounted", True)
