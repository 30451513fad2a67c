"""
The files that the configuration names, read once and built into the contexts
that all handshakes share; replaced as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from OpenSSL import SSL, crypto

from ktlsagent.clocks import dateNow
from ktlsagent.config import AgentConfig
from ktlsagent.credentials.contexts import ProfileContexts, ProfileSet
from ktlsagent.credentials.crls import RevocationList, addCRLs, newest, readCRLs
from ktlsagent.credentials.expiry import Expiry
from ktlsagent.credentials.files import Files, Named
from ktlsagent.credentials.inventory import Inventory, Revocations
from ktlsagent.credentials.owncertificates import CERTIFICATE, Missing, OwnFiles, readOwn
from ktlsagent.credentials.parts import Parts, makeContexts
from ktlsagent.credentials.truststores import SYSTEM_TRUST_STORES, Anchors, readAnchors
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.peers.authorisation import Rule
from ktlsagent.peers.revocation import RevocationLists
from ktlsagent.peers.tags import TagSet, loadTags
from ktlsagent.profiles import DEFAULT_GROUPS, KEY_SHARE, CRLScope, Profile, withKeyShares
from ktlsagent.protocols import openssl
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.openssl import errorWords
from ktlsagent.protocols.session import Demand, Role


def loadProfiles(
    config: AgentConfig,
    kernelSuites: frozenset[str],
    systemTrustStores: Sequence[str] = SYSTEM_TRUST_STORES,
    *,
    now: datetime | None = None,
    inUse: ProfileSet | None = None,
) -> ProfileSet:
    """
    Read all files and build the contexts.

    @param config: the configuration.
    @param kernelSuites: the cipher suites that the running kernel takes.
    @param systemTrustStores: where the system's trust store may be.
    @param now: the time of day; by default that of the wall clock.
    @param inUse: what was read before, if anything.
    @return: the contexts, and what they are made of.
    @raise ConfigError: with all mistakes, if anything is missing or wrong.
    """
    reader = _Reader(
        kernelSuites, systemTrustStores, now or dateNow(), {} if inUse is None else inUse.own
    )
    parts = [reader.parts(profile) for profile in config.profiles]
    tags = reader.tags(config)
    reader.raiseMistakes()
    profiles = [reader.contexts(one) for one in parts]
    reader.raiseMistakes()
    return ProfileSet(
        profiles,
        config.keyrings,
        tags,
        reader.inventory(),
        reader.expiries(),
        frozenset(reader.files.paths),
        reader.notices(),
        reader.own,
    )


class _Reader:
    """
    Reads what profiles name.

    @ivar files: the files, with what is wrong with them.
    @ivar own: our certificates, by the files that they are in.
    """

    def __init__(
        self,
        kernelSuites: frozenset[str],
        systemTrustStores: Sequence[str],
        now: datetime,
        inUse: Mapping[str, OwnFiles],
    ) -> None:
        self.files = Files()
        self.own: dict[str, OwnFiles] = {}
        self._kernelSuites = kernelSuites
        self._systemTrustStores = systemTrustStores
        self._now = now
        self._inUse = inUse
        self._anchors: dict[str, Anchors] = {}
        self._crls: dict[object, tuple[str, RevocationList]] = {}
        self._stores: dict[object, crypto.X509Store] = {}
        self._tagMistakes: Sequence[Mistake] = ()

    def raiseMistakes(self) -> None:
        """Raise L{ConfigError} if anything is wrong so far."""
        mistakes = [*self.files.mistakes, *self._tagMistakes]
        if mistakes:
            raise ConfigError(mistakes)

    def parts(self, profile: Profile) -> Parts:
        """
        Read what a profile names; what nobody can ask it for is left out.

        @param profile: the profile.
        @return: the parts of its contexts, poor ones if there are mistakes.
        """
        modes = frozenset(profile.match.modes or AuthMode)
        own: Sequence[OwnFiles] = ()
        missing: Missing | None = None
        if AuthMode.X509 in modes:
            own, missing = readOwn(self.files, profile, self._now, self._inUse)
        self.own.update({one.path: one for one in own})
        suites, groups = self._suites(profile), self._groups(profile)
        if modes == {AuthMode.PSK}:
            return Parts(profile, modes, suites, groups, crypto.X509Store())
        store, crls = self._store(profile)
        moments = [
            moment
            for _path, one in crls
            for moment in (one.says.thisUpdate, one.crl.next_update_utc)
            if moment is not None
        ]
        lists = [(one.name, one.crl, one.says.serials) for _path, one in crls]
        revocations = RevocationLists(lists, profile.trust.crlScope)
        return Parts(profile, modes, suites, groups, store, own, missing, moments, revocations)

    def _suites(self, profile: Profile) -> Sequence[str]:
        """Those of the suites that the kernel takes."""
        suites = profile.handshake.suites
        usable = [name for name in suites if name in self._kernelSuites]
        if not usable:
            names = ", ".join(sorted(self._kernelSuites))
            self.files.mistake(
                Named(profile.name, "suites", f"at least one of {names}, which this kernel takes"),
                ", ".join(suites),
            )
        return usable or suites

    def _groups(self, profile: Profile) -> Sequence[str]:
        """Those of the groups that OpenSSL has, with key shares; none means its own choice."""
        version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()
        handshake = profile.handshake
        named = [group.removeprefix(KEY_SHARE) for group in handshake.groups]
        groups = openssl.supportedGroups(tuple(named))
        algorithms = openssl.supportedSignatureAlgorithms(tuple(handshake.signatureAlgorithms))
        for key, wanted, supported in (
            ("groups", named, groups),
            ("signature_algorithms", handshake.signatureAlgorithms, algorithms),
        ):
            missing = [name for name in wanted if name not in supported]
            if missing and tuple(wanted) != DEFAULT_GROUPS:
                words = key.replace("_", " ")
                self.files.mistake(
                    Named(profile.name, key, f"{words} that {version} lets us choose"),
                    ", ".join(missing),
                    "remove them",
                )
        if profile.match.roles[0] is Role.SERVER:
            return groups
        return withKeyShares(
            [group for group in handshake.groups if group.removeprefix(KEY_SHARE) in groups]
        )

    def _store(
        self, profile: Profile
    ) -> tuple[crypto.X509Store, Sequence[tuple[str, RevocationList]]]:
        """
        Read what peers are judged by, and the CRLs in it; profiles that say the same
        share a store.
        """
        trust = profile.trust
        anchors = readAnchors(self.files, profile.name, trust.stores, self._systemTrustStores)
        crls = readCRLs(self.files, profile.name, trust, self._now)
        self._anchors.update({one.path: one for one in anchors})
        self._crls.update({(path, one.name, one.says): (path, one) for path, one in crls})
        # OpenSSL looks for serverAuth and clientAuth alone.
        anyPurpose = trust.rpcPurpose is not Demand.OFF
        key = (tuple(trust.stores), tuple(trust.crls), trust.crlScope, anyPurpose)
        store = self._stores.get(key)
        if store is None:
            store = self._stores[key] = crypto.X509Store()
            # Without it OpenSSL passes over what a CA demands of certificate policies.
            store.set_flags(crypto.X509StoreFlags.POLICY_CHECK)
            certificates = [one for file in anchors for one in file.certificates]
            # Anything in the trust store is trusted, an intermediate CA as
            # well, as tlshd's users know it.  But OpenSSL then goes no further
            # up, and looks for no CRL with that CA in it.
            if trust.crlScope is not CRLScope.CHAIN or not _complete(certificates):
                store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
            for certificate in certificates:
                store.add_cert(certificate)
            if trust.crls:
                addCRLs(store, crls, trust.crlScope)
            if anyPurpose:
                openssl.setAnyPurpose(store)
        return store, crls

    def tags(self, config: AgentConfig) -> TagSet:
        """
        Read the session tags, and see whether those that profiles name are among them.

        @param config: the configuration.
        @return: the tags; none if there are mistakes.
        """
        self.files.paths.add(config.tagDirectory)
        try:
            tags = loadTags(config.tagDirectory)
        except ConfigError as error:
            self._tagMistakes = error.mistakes
            return TagSet()
        for profile in config.profiles:
            for key, names in (
                ("tags", profile.tags or ()),
                ("allow", _tagsIn(profile.access.allow)),
                ("deny", _tagsIn(profile.access.deny)),
            ):
                for name in names:
                    if name not in tags.names:
                        self.files.mistake(
                            Named(profile.name, key, f"tags that {config.tagDirectory} defines"),
                            repr(name),
                            f"defined are {', '.join(sorted(tags.names)) or 'none'}",
                        )
        return tags

    def contexts(self, parts: Parts) -> ProfileContexts:
        """
        Make the contexts of a profile.

        @param parts: what they are made of; nothing is wrong with that.
        @return: the contexts.
        """
        try:
            return makeContexts(parts)
        except SSL.Error as error:
            named = Named(parts.profile.name, CERTIFICATE, "certificates that OpenSSL takes")
            paths = " or ".join(one.path for one in parts.own)
            self.files.mistake(named, f"one that it does not in {paths} ({errorWords(error)})")
            return ProfileContexts(parts.profile)

    def inventory(self) -> Inventory:
        """
        Say what is in use.

        @return: it.
        """
        crls: dict[str, Revocations] = {}
        for _path, one in newest(self._crls.values(), self._now):
            crls.setdefault(one.name, one.says)
        return Inventory(
            {path: anchors.ders for path, anchors in self._anchors.items()},
            crls,
            {path: own.ders for path, own in self.own.items()},
        )

    def expiries(self) -> Sequence[Expiry]:
        """
        Say what ends, and when.

        @return: our certificates, CRLs and trust anchors.
        """
        own = [expiry for one in self.own.values() for expiry in one.expiries()]
        crls = [one.expiry(path) for path, one in self._crls.values()]
        anchors = [expiry for one in self._anchors.values() for expiry in one.expiries()]
        return [*own, *(expiry for expiry in crls if expiry is not None), *anchors]

    def notices(self) -> Sequence[str]:
        """
        Say what is odd.

        @return: sentences.
        """
        known = {
            certificate.get_subject().der()
            for anchors in self._anchors.values()
            for certificate in anchors.certificates
        }
        strangers = [
            f"the CRL of {one.name} in {path} is of no CA of a trust store: it counts only where "
            "a peer sends that CA's certificate"
            for path, one in self._crls.values()
            if one.crl.issuer.public_bytes() not in known
        ]
        # Who looks at our certificates mostly trusts whom we trust.
        alone = [
            f"the certificate {one.subject} in {one.path} is sent alone, and its issuer, "
            f"{one.issuer}, is in no trust store here: if that is an intermediate CA, append its "
            "certificate to the file, or peers refuse ours"
            for one in self.own.values()
            if known and one.alone and one.chain[0].get_issuer().der() not in known
        ]
        return [*self.files.notices, *strangers, *alone]


def _complete(anchors: Sequence[crypto.X509]) -> bool:
    """Say whether the issuer of each trust anchor is one, too."""
    subjects = {anchor.get_subject().der() for anchor in anchors}
    return all(anchor.get_issuer().der() in subjects for anchor in anchors)


def _tagsIn(rules: Sequence[Rule]) -> Sequence[str]:
    """Find the tags that rules are about."""
    return [rule.text.removeprefix("tag:") for rule in rules if rule.text.startswith("tag:")]
