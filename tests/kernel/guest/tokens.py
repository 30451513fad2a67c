"""
Tokens in software that are real to whoever uses them: a TPM 2.0 (swtpm) and PKCS#11
tokens (SoftHSM), the latter also behind a server, as an HSM in the network is.

What answers is a process of the lab, so it can hang, end and come back.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.kernel.guest import certificates, tpmrelay
from tests.kernel.guest.certificates import certificate, privateKey
from tests.kernel.guest.hosts import CommandFailed
from tests.kernel.guest.waiting import until

DIRECTORY: Final = Path("/tmp/lab/tokens")

PIN: Final = "4321"

_MODULES: Final = next(Path("/usr/lib").glob("*/ossl-modules"), Path("/usr/lib/ossl-modules"))
_SOFTHSM: Final = "/usr/lib/softhsm/libsofthsm2.so"
_REMOTE: Final = _MODULES.parent / "pkcs11" / "p11-kit-client.so"
_SERVER: Final = "/usr/libexec/p11-kit/p11-kit-server"

_KINDS: Final = {
    "EC": ("group:P-256", "EC:prime256v1"),
    "RSA": ("bits:2048", "rsa:2048"),
}
"""Kinds of keys, as tpm2-openssl and as pkcs11-tool call them."""

_CONFIGURATION: Final = """\
openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
[provider_sect]
default = default_sect
tpm2 = tpm2_sect
pkcs11 = pkcs11_sect
[default_sect]
activate = 1
[tpm2_sect]
module = {modules}/tpm2.so
activate = 1
[pkcs11_sect]
module = {modules}/pkcs11.so
pkcs11-module-path = {pkcs11}
activate = 1
"""


class Tokens:
    """
    The tokens of a scenario: nothing is there but what is asked for.

    @ivar directory: where they keep everything.
    """

    def __init__(
        self, directory: Path = DIRECTORY, *, remote: bool = False, fresh: bool = True
    ) -> None:
        """
        @param directory: where they keep everything.
        @param remote: whether PKCS#11 leads to a server (p11-kit), which can hang.
        @param fresh: whether to begin with nothing, or with what another
            process has made.
        """
        self.directory = directory
        self._remote = remote
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        if not fresh:
            return
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "tpm").mkdir(parents=True)
        (directory / "hsm").mkdir()
        self._configure()

    def environment(self) -> dict[str, str]:
        """
        Say what a process needs in its environment to find the tokens.

        @return: the variables.
        """
        found = {
            "OPENSSL_CONF": str(self.directory / "openssl.cnf"),
            "SOFTHSM2_CONF": str(self.directory / "softhsm2.conf"),
            "TPM2OPENSSL_TCTI": f"swtpm:path={self.directory}/tpm.sock",
        }
        if self._remote:
            found["P11_KIT_SERVER_ADDRESS"] = f"unix:path={self.directory}/pkcs11.sock"
        return found

    def prefix(self) -> Sequence[str]:
        """
        Say the same as the beginning of an agent's command.

        @return: C{env} and the variables.
        """
        return ["env", *(f"{name}={value}" for name, value in self.environment().items())]

    def prefixWithDevice(self, signingSeconds: float = 0.0) -> Sequence[str]:
        """
        Do as L{prefix} does, but have the way to the TPM stay open, as a device's does.

        @param signingSeconds: what a signature takes longer there.
        @return: C{env} and the variables.
        """
        relay = f"cmd:exec {sys.executable} -IS {tpmrelay.__file__} {self.directory}/tpm.sock"
        relay += f" {signingSeconds}"
        return [*self.prefix(), f"TPM2OPENSSL_TCTI={relay}"]

    def startTPM(self) -> None:
        """Start the TPM; it keeps what it knows over a restart."""
        socket = self.directory / "tpm.sock"
        self._start(
            "tpm",
            *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.directory}/tpm"),
            *("--server", f"type=unixio,path={socket},disconnect"),
            *("--ctrl", f"type=unixio,path={socket}.ctrl"),
            *("--flags", "not-need-init,startup-clear"),
        )
        until(socket.exists, "the TPM has started")

    def startServer(self) -> None:
        """Start the server that PKCS#11 leads to."""
        socket = self.directory / "pkcs11.sock"
        arguments = ["--foreground", "--name", str(socket), "--provider", _SOFTHSM, "pkcs11:"]
        self._start("server", _SERVER, *arguments)
        until(socket.exists, "the server of the PKCS#11 tokens has started")

    @contextlib.contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """
        Let a process hang for a while.

        @param name: C{tpm} or C{server}.
        @return: a context in which it hangs.
        """
        self.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(name, signal.SIGCONT)

    def signal(self, name: str, number: int) -> None:
        """
        Send a signal to a process and what it has started.

        @param name: C{tpm} or C{server}.
        @param number: the signal.
        """
        os.killpg(int((self.directory / f"{name}.pid").read_text()), number)

    def stop(self, name: str) -> None:
        """
        End a process.

        @param name: C{tpm} or C{server}.
        """
        self.signal(name, signal.SIGKILL)
        self._processes.pop(name).wait()
        (self.directory / f"{name}.pid").unlink()
        for path in self.directory.glob("*.sock*"):
            if path.name.startswith({"tpm": "tpm", "server": "pkcs11"}[name]):
                path.unlink()

    def close(self) -> None:
        """End all processes."""
        for name in list(self._processes):
            self.stop(name)

    def tpmKey(self, name: str, kind: str = "EC", pin: str | None = None) -> Path:
        """
        Make a key in the TPM.

        @param name: what its file is called.
        @param kind: C{EC} or C{RSA}.
        @param pin: its authorisation value, if it is to have one.
        @return: the file, C{TSS2 PRIVATE KEY} in PEM.
        """
        path = self.directory / f"{name}.pem"
        options = ["-provider", "tpm2", "-provider", "default", "-pkeyopt", _KINDS[kind][0]]
        if pin is not None:
            options += ["-pkeyopt", f"user-auth:{pin}"]
        self._call("openssl", "genpkey", "-algorithm", kind, *options, "-out", str(path))
        path.chmod(0o600)
        return path

    def makeToken(self, label: str, pin: str = PIN) -> Path:
        """
        Make a PKCS#11 token.  A process that looks for tokens later finds it.

        @param label: its label.
        @param pin: its PIN.
        @return: a file with the PIN that only root can read.
        """
        pins = ["--so-pin", "12345678", "--pin", pin]
        self._call("softhsm2-util", "--init-token", "--free", "--label", label, *pins)
        return self.pinFile(label, pin)

    def pinFile(self, name: str, pin: str = PIN) -> Path:
        """
        Write a PIN's file.

        @param name: what it is called.
        @param pin: the PIN.
        @return: a file that only root can read.
        """
        path = self.directory / f"{name}.pin"
        path.touch(mode=0o600)
        path.write_text(pin + "\n")
        return path

    def importKey(self, label: str, name: str, keyFile: str, pin: str = PIN) -> str:
        """
        Put a key into a token.

        @param label: the token's label.
        @param name: what it is called there.
        @param keyFile: the key in PKCS#8.
        @param pin: the token's PIN.
        @return: its URI.
        """
        self._call(
            *("softhsm2-util", "--import", keyFile, "--token", label, "--pin", pin),
            *("--label", name, "--id", name.encode().hex()),
        )
        return _uri(label, name)

    def generateKey(self, label: str, name: str, kind: str = "EC", pin: str = PIN) -> str:
        """
        Make a key in a token, which it never leaves.

        @param label: the token's label.
        @param name: what it is called there.
        @param kind: C{EC} or C{RSA}.
        @param pin: the token's PIN.
        @return: its URI.
        """
        self._call(
            *("pkcs11-tool", "--module", _SOFTHSM, "--token-label", label, "--login", "--pin", pin),
            *("--keypairgen", "--key-type", _KINDS[kind][1], "--label", name),
            *("--id", name.encode().hex()),
        )
        return _uri(label, name)

    def certify(self, name: str, key: str, names: Sequence[str], pin: str | None = None) -> str:
        """
        Have the lab's CA certify a key that is in a token.

        @param name: what the certificate is called among the lab's.
        @param key: the key's file or URI.
        @param names: DNS names and addresses; the first one is the subject.
        @param pin: the token's PIN, if it has one.
        @return: the certificate's file.
        """
        secret = [] if pin is None else ["-passin", f"pass:{pin}"]
        command = ["openssl", "pkey", "-in", key, "-pubout", *secret]
        public = self._call(*command, configured=True)
        _issue(name, public.encode(), names)
        return certificate(name)

    def _configure(self) -> None:
        """Write the configurations."""
        pkcs11 = _REMOTE if self._remote else _SOFTHSM
        (self.directory / "openssl.cnf").write_text(
            _CONFIGURATION.format(modules=_MODULES, pkcs11=pkcs11)
        )
        (self.directory / "softhsm2.conf").write_text(
            f"directories.tokendir = {self.directory}/hsm\nobjectstore.backend = file\n"
        )

    def _start(self, name: str, *arguments: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                arguments,
                env=self._environment(configured=False),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self.directory / f"{name}.pid").write_text(str(self._processes[name].pid))

    def _environment(self, *, configured: bool) -> dict[str, str]:
        """Make an environment; a token that finds OpenSSL configured would ask itself."""
        found = {**os.environ, **self.environment()}
        if not configured:
            del found["OPENSSL_CONF"]
        return found

    def _call(self, *arguments: str, configured: bool = False) -> str:
        done = subprocess.run(
            arguments,
            env=self._environment(configured=configured),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        # With trixie's pkcs11-provider, openssl crashes when all is done.
        if done.returncode and not (configured and done.stdout):
            raise CommandFailed(f"{' '.join(arguments)}: status {done.returncode}: {done.stderr}")
        return done.stdout


def _uri(label: str, name: str) -> str:
    return f"pkcs11:token={label};object={name};type=private"


def _issue(name: str, public: bytes, names: Sequence[str]) -> None:
    """Make a certificate for a public key."""
    now = dt.datetime.now(dt.UTC)
    issuer = x509.load_pem_x509_certificate(Path(certificate("ca")).read_bytes())
    signer = serialization.load_pem_private_key(Path(privateKey("ca")).read_bytes(), None)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    alternatives = [certificates._alternative(text) for text in names]
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
        .issuer_name(issuer.subject)
        .public_key(serialization.load_pem_public_key(public))  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    )
    Path(certificate(name)).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
