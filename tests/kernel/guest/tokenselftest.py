"""
Shows on real tokens what ktlsagent says of them: run it where the kernel lab's
packages are, C{python3 -m tests.kernel.guest.tokenselftest}.  It needs no kernel.
"""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from tests.kernel.guest import certificates
from tests.kernel.guest.tokens import Tokens as LabTokens
from tests.kernel.guest.waiting import Unexpected, expect

_MARK: Final = "KTLSAGENT_TOKENS_PART"
_SECONDS: Final = 4.5
_SOFTHSM: Final = "/usr/lib/softhsm/libsofthsm2.so"


class SelfTest:
    """The tokens, and what uses them."""

    def __init__(self, tokens: LabTokens) -> None:
        """
        @param tokens: the tokens, which this process's environment is for.
        """
        # OpenSSL reads its configuration when it is imported, and asks the TPM at once.
        from twisted.internet import reactor  # noqa: PLC0415

        from ktlsagent.credentials.latecontexts import LateContexts, Tokens  # noqa: PLC0415

        self.lab = tokens
        self.reactor: Any = reactor
        self.tokens = Tokens(cast(Any, reactor))
        self._late = LateContexts

    def late(self, key: str, pin: Path | None = None, name: str = "server") -> Any:
        """
        Prepare a server with a key in a token.

        @param key: the key's file or URI.
        @param pin: the PIN's file.
        @param name: the certificate's name.
        @return: its late contexts.
        """
        from OpenSSL import crypto  # noqa: PLC0415

        from ktlsagent.credentials.tokens import TokenKey  # noqa: PLC0415
        from ktlsagent.protocols.context import OwnCertificate  # noqa: PLC0415

        place = None if pin is None else str(pin)
        if key.startswith("/"):
            named = TokenKey.fromPEM(key, Path(key).read_bytes(), place)
        else:
            named = TokenKey.fromURI(key, place)
        assert named is not None
        data = Path(certificates.certificate(name)).read_bytes()
        chain = (crypto.load_certificate(crypto.FILETYPE_PEM, data),)

        def make(keys: Mapping[TokenKey, crypto.PKey]) -> Any:
            return self.context(OwnCertificate(chain, keys[named], slow=True))

        return self._late([named], make)

    def inFile(self) -> Any:
        """
        Make a server's context with a key that is in no token.

        @return: the context.
        """
        from OpenSSL import crypto  # noqa: PLC0415

        from ktlsagent.protocols.context import OwnCertificate  # noqa: PLC0415

        chain = Path(certificates.certificate("server")).read_bytes()
        private = Path(certificates.privateKey("server")).read_bytes()
        own = OwnCertificate(
            (crypto.load_certificate(crypto.FILETYPE_PEM, chain),),
            crypto.load_privatekey(crypto.FILETYPE_PEM, private),
        )
        return self.context(own)

    def context(self, *own: Any) -> Any:
        """
        Make a context that trusts the lab's CA.

        @param own: own certificates.
        @return: the context.
        """
        from OpenSSL import crypto  # noqa: PLC0415

        from ktlsagent.protocols.context import TLSContext  # noqa: PLC0415
        from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES  # noqa: PLC0415

        store = crypto.X509Store()
        data = Path(certificates.certificate("ca")).read_bytes()
        store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, data))
        return TLSContext(store=store, own=own, suites=tuple(CIPHER_SUITES), groups=())

    def handshake(self, server: Any) -> None:
        """
        Run both ends of a handshake.

        @param server: the server's context.
        @raise HandshakeError: if the server fails.
        """
        from ktlsagent.protocols.engine import TLSEngine  # noqa: PLC0415
        from ktlsagent.protocols.interfaces import EngineState, TLSParameters  # noqa: PLC0415
        from ktlsagent.protocols.session import Role  # noqa: PLC0415
        from tests.support.tlspeers import records  # noqa: PLC0415

        ends = [
            TLSEngine(TLSParameters(role, context, None, lambda _chain: None))
            for role, context in ((Role.CLIENT, self.context()), (Role.SERVER, server))
        ]
        ends[1].start()
        waiting, turn = records(ends[0].start()), 1
        while waiting:
            answer = b""
            for record in waiting:
                if ends[turn].state is EngineState.NEED_RECORD:
                    answer += ends[turn].receiveRecord(record)
            waiting, turn = records(answer), 1 - turn
        if ends[1].error is not None:
            raise ends[1].error
        expect("the server's state", ends[1].state, EngineState.COMPLETE)

    async def serve(self, late: Any, seconds: float = _SECONDS) -> None:
        """
        Serve one handshake as the agent does.

        @param late: the server.
        @param seconds: how long it may take.
        @raise HandshakeError: if it fails.
        """
        from ktlsagent.errors import TokenFailed  # noqa: PLC0415

        deadline = self.reactor.seconds() + seconds
        context = await self.tokens.ready(late, deadline)
        try:
            await self.tokens.run(late, deadline, partial(self.handshake, context))
        except TokenFailed:
            self.tokens.forget(late, context)
            raise

    async def refused(self, code: str, late: Any, seconds: float = _SECONDS) -> None:
        """
        Check that a handshake fails.

        @param code: why.
        @param late: the server.
        @param seconds: how long it may take.
        """
        from ktlsagent.errors import HandshakeError  # noqa: PLC0415

        try:
            await self.serve(late, seconds)
        except HandshakeError as error:
            print(f"   {error.code}: {error.reason}", flush=True)
            expect("the code", error.code, code)
        else:
            raise Unexpected(f"a handshake succeeded where {code} was expected")

    def free(self) -> None:
        """Forget all keys: a TPM without a resource manager has room for three objects."""
        self.tokens.begin([])
        gc.collect()

    async def kinds(self) -> None:
        """Keys of both kinds, in both kinds of tokens, with and without a PIN."""
        lab = self.lab
        pin = lab.makeToken("lab")
        lab.pinFile("auth", "sesame")
        keys: dict[str, tuple[str, str | None]] = {
            "tpm-ec": (str(lab.tpmKey("ec")), None),
            "tpm-rsa": (str(lab.tpmKey("rsa", "RSA")), None),
            "tpm-pin": (str(lab.tpmKey("auth", pin="sesame")), "sesame"),
            "hsm-ec": (lab.generateKey("lab", "ec"), "4321"),
            "hsm-rsa": (lab.generateKey("lab", "rsa", "RSA"), "4321"),
        }
        for name, (key, secret) in keys.items():
            self.free()
            lab.certify(name, key, ["server.lab"], secret)
            place = {None: None, "sesame": lab.directory / "auth.pin", "4321": pin}[secret]
            late = self.late(key, place, name)
            begun = time.monotonic()
            await self.serve(late)
            first = time.monotonic()
            for _time in range(20):
                await self.serve(late)
            each = (time.monotonic() - first) / 20
            print(f"   {name}: first {first - begun:.3f} s, then {each * 1000:.1f} ms", flush=True)
            del late
        imported = lab.importKey("lab", "imported", certificates.privateKey("client"))
        await self.serve(self.late(imported, pin, "client"))
        await self.refused("key-mismatch", self.late(imported, pin, "server"))

    async def pins(self) -> None:
        """PINs that are wrong or not there."""
        lab = self.lab
        lab.makeToken("more")
        lab.importKey("more", "server", certificates.privateKey("server"))
        right = lab.makeToken("pins")
        uri = lab.importKey("pins", "server", certificates.privateKey("server"))
        wrong = lab.pinFile("wrong", "0815")
        late = self.late(uri, wrong)
        await self.refused("pin-refused", late)
        await self.refused("pin-refused", late)
        wrong.write_text("4321\n")
        await self.serve(late)
        # Who has logged in to a token is not asked for its PIN again.
        uri = uri.replace("pins", "more")
        await self.refused("token-locked", self.late(uri))
        await self.refused("token-locked", self.late(uri, Path("/nowhere")))
        right.chmod(0o644)
        await self.refused("token-locked", self.late(uri, right))
        key = str(lab.tpmKey("locked", pin="sesame"))
        lab.certify("tpm-locked", key, ["server.lab"], "sesame")
        late = self.late(key, lab.pinFile("tpm-wrong", "0815"), "tpm-locked")
        await self.refused("pin-refused", late)
        await self.refused("pin-refused", late)

    async def absent(self) -> None:
        """A token that comes late, and a key that is not in it."""
        lab = self.lab
        uri = "pkcs11:token=late;object=server"
        late = self.late(uri, lab.pinFile("late"))
        await self.refused("token-unavailable", late)
        pin = lab.makeToken("late")
        await self.refused("token-unavailable", late)
        lab.importKey("late", "server", certificates.privateKey("server"))
        await self.serve(late)
        lab.makeToken("later")
        lab.importKey("later", "server", certificates.privateKey("server"))
        print("   what comes later still needs another process:", flush=True)
        await self.refused("token-unavailable", self.late("pkcs11:token=later;object=server", pin))

    async def session(self) -> None:
        """A session that the token has ended: one handshake fails, the next one works."""
        lab = self.lab
        pin = lab.makeToken("session")
        uri = lab.importKey("session", "server", certificates.privateKey("server"))
        late = self.late(uri, pin)
        await self.serve(late)
        module = ctypes.CDLL(_SOFTHSM)
        slots, count = (ctypes.c_ulong * 32)(), ctypes.c_ulong(32)
        module.C_GetSlotList(1, slots, ctypes.byref(count))
        for slot in slots[: count.value]:
            module.C_CloseAllSessions(ctypes.c_ulong(slot))
        await self.refused("token-failed", late)
        await self.serve(late)

    async def remote(self) -> None:
        """A PKCS#11 token in the network that hangs holds up nobody but those who need it."""
        lab = self.lab
        # Copies of one key, of which one is in the token, are the same to its provider.
        pin = lab.makeToken("remote")
        uri = lab.importKey("remote", "client", certificates.privateKey("client"))
        lab.startServer()
        late = self.late(uri, pin, "client")
        await self.serve(late)
        await self.meanwhile("server", late)
        await self.serve(late, 20)

    async def meanwhile(self, name: str, late: Any) -> None:
        """
        Serve with keys in files while a token hangs.

        @param name: the token's process.
        @param late: what needs the token.
        """
        from twisted.internet.defer import Deferred  # noqa: PLC0415

        other = self.inFile()
        with self.lab.hanging(name):
            waiting = [
                Deferred.fromCoroutine(self.refused("token-slow", late, 2)) for _ in range(6)
            ]
            longest = 0.0
            for _time in range(100):
                begun = time.monotonic()
                self.handshake(other)
                longest = max(longest, time.monotonic() - begun)
            print(f"   100 others meanwhile, the longest {longest * 1000:.1f} ms", flush=True)
            expect("whether any of them waited for the token", longest > 1, False)
            for one in waiting:
                await one

    async def hangs(self) -> None:
        """A TPM that hangs holds up nobody but those who need it."""
        key = str(self.lab.tpmKey("hangs"))
        self.lab.certify("tpm-hangs", key, ["server.lab"])
        late = self.late(key, name="tpm-hangs")
        await self.serve(late)
        await self.meanwhile("tpm", late)
        await self.serve(late, 20)

    async def ends(self) -> None:
        """The process ends while a token hangs: the last thing that it does."""
        key = str(self.lab.tpmKey("ends"))
        self.lab.certify("tpm-ends", key, ["server.lab"])
        late = self.late(key, name="tpm-ends")
        await self.serve(late)
        self.lab.signal("tpm", signal.SIGSTOP)
        await self.refused("token-slow", late, 1)
        expect("whether a thread is left", threading.active_count() > 1, True)


PARTS: Final = ("kinds", "pins", "absent", "session", "hangs", "remote", "ends")
"""What is shown, each in a process of its own: providers look for tokens only once."""


def _run(part: str) -> None:
    """Show one part, in a process whose environment leads to the tokens."""
    from twisted.internet.defer import Deferred  # noqa: PLC0415

    test = SelfTest(LabTokens(fresh=False, remote=part == "remote"))
    story: Callable[[], Coroutine[Any, Any, None]] = getattr(test, part)
    print(f"== {part}: {story.__doc__}", flush=True)
    failed: list[Any] = []

    def begin() -> None:
        done = Deferred.fromCoroutine(story()).addErrback(failed.append)
        done.addBoth(lambda _ignored: test.reactor.stop())

    test.reactor.callWhenRunning(begin)
    test.reactor.run()
    for failure in failed:
        failure.printTraceback(file=sys.stdout)
    sys.stdout.flush()
    os._exit(bool(failed))


def main() -> None:
    """Show all parts, or those that are named."""
    if _MARK in os.environ:
        _run(os.environ[_MARK])
    failed = []
    shutil.rmtree(certificates.DIRECTORY, ignore_errors=True)
    certificates.issueAll()
    for part in sys.argv[1:] or PARTS:
        tokens = LabTokens(remote=part == "remote")
        tokens.startTPM()
        try:
            # OpenSSL reads its configuration when a process begins.
            environment = {**os.environ, **tokens.environment(), _MARK: part}
            command = [sys.executable, "-m", __spec__.name]
            if subprocess.run(command, env=environment, check=False).returncode:
                failed.append(part)
        finally:
            tokens.close()
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
