"""
From the sections of a configuration to its profiles: where a value that is
missing comes from, and which do not go together.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from ktlsagent.config.keyfile import Entry
from ktlsagent.config.keys import (
    ACCESS_KEYS,
    HANDSHAKE_KEYS,
    IDENTITY_KEYS,
    KEY_MODES,
    KEY_ROLES,
    MATCH_KEYS,
    MODES,
    OWN_KEYS,
    PRESETS,
    ROLES,
    TRUST_KEYS,
    Key,
)
from ktlsagent.errors import Mistake
from ktlsagent.peers.authorisation import Access
from ktlsagent.profiles import CertificateFiles, Handshake, Match, Own, Profile, Trust
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.session import Demand, Role

Part = TypeVar("Part")


@dataclass(slots=True)
class Section:
    """
    A section, of which parts may be in several places of the file.

    @ivar name: its name.
    @ivar line: the line of its first header.
    @ivar entries: its entries by key.
    @ivar values: what could be read of them, by key.
    """

    name: str
    line: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def defaultSection(role: Role) -> str:
    """
    Name the section of a role that tlshd has, too.

    @param role: the role.
    @return: the section's name, which is also that of its profile.
    """
    return f"authenticate.{role.value}"


def assemble(
    sections: Sequence[Section], defaults: Mapping[Role, Section], shared: Mapping[str, Any]
) -> tuple[tuple[Profile, ...], list[Mistake]]:
    """
    Make the profiles.

    @param sections: the sections of profiles, in the order of the file.
    @param defaults: each role's own section.
    @param shared: the values by key that apply to all.
    @return: the profiles of the sections, for each role that they are for, then
        those of the roles; and what is contradictory.
    """
    mistakes: list[Mistake] = []
    profiles: list[Profile] = []
    for section in sections:
        preset = PRESETS.get(section.values.get("preset", ""), {})
        match = ChainMap(section.values, dict(preset))
        roles = _rolesOf(match)
        wrong = list(_againstPreset(section, preset))
        wrong = wrong or [
            *(_withoutEffect(section, match, roles) if roles else _impossible(section))
        ]
        made = []
        for role in roles if not wrong else ():
            values = _inherit(section, preset, defaults[role], shared)
            wrong += _contradictions(section, values)
            made.append(_profile(section.name, role, values))
        mistakes += wrong or _covered(section, made, profiles)
        profiles += made
    for role, section in defaults.items():
        values = ChainMap(section.values, dict(shared))
        mistakes += _withoutEffect(section, {}, (role,))
        mistakes += _contradictions(section, values)
        profiles.append(_profile(section.name, role, values))
    return tuple(profiles), list(dict.fromkeys(mistakes))


def _rolesOf(match: Mapping[str, Any]) -> Sequence[Role]:
    """Say for which roles a section's conditions can hold at all."""
    roles: Sequence[Role] = match.get("role", tuple(Role))
    clientOnly = "name" in match or match.get("mode") == (AuthMode.UNAUTH,)
    return [role for role in roles if role is Role.CLIENT or not clientOnly]


def _inherit(
    section: Section, preset: Mapping[str, Any], default: Section, shared: Mapping[str, Any]
) -> Mapping[str, Any]:
    """
    Add to a section's own values those that it does not have.  Certificates and
    keys belong together: with one of its own it gets none from elsewhere.
    """
    own = any(key in IDENTITY_KEYS for key in section.values)
    inherited = {
        key: value for key, value in default.values.items() if not (own and key in IDENTITY_KEYS)
    }
    return ChainMap(section.values, dict(preset), inherited, dict(shared))


def _profile(name: str, role: Role, values: Mapping[str, Any]) -> Profile:
    trust = _part(Trust, TRUST_KEYS, values)
    certificates = [
        CertificateFiles(certificate, key)
        for kind in ("x509.pq", "x509")
        for certificate, key in zip(
            values.get(f"{kind}.certificate", ()),
            values.get(f"{kind}.private_key", ()),
            strict=False,
        )
    ]
    return Profile(
        name,
        replace(_part(Match, MATCH_KEYS, values), roles=(role,)),
        # Without a chain there is nothing to look up in a CRL.
        trust if trust.stores else replace(trust, crls=()),
        replace(_part(Own, OWN_KEYS, values), certificates=tuple(certificates)),
        _part(Handshake, HANDSHAKE_KEYS, values),
        _part(Access, ACCESS_KEYS, values),
        values.get("tags"),
    )


def _part(kind: Callable[..., Part], keys: Mapping[str, Key], values: Mapping[str, Any]) -> Part:
    """Make a part of a profile; a field without a value has its default."""
    return kind(
        **{key.field: values[name] for name, key in keys.items() if key.field and name in values}
    )


def _againstPreset(section: Section, preset: Mapping[str, Any]) -> Iterator[Mistake]:
    """Find conditions that a preset excludes: a section may only narrow it."""
    for key, names in (("role", ROLES), ("mode", MODES)):
        if key in preset and not set(section.values.get(key, ())) <= set(preset[key]):
            entry = section.entries[key]
            yield entry.mistake(
                f"only {_words(preset[key], names)} with preset={section.values['preset']}",
                _words(section.values[key], names),
                f"remove the line, or the one with the preset on line"
                f" {section.entries['preset'].line}",
            )


def _impossible(section: Section) -> Iterator[Mistake]:
    """Say why a section is for neither role."""
    key = "name" if "name" in section.entries else "mode"
    why = {
        "name": "only a client knows by which name the other side is meant",
        "mode": "nfsd asks for x509, and a client of its may have no certificate all the same",
    }
    yield section.entries[key].mistake("role=client beside it", "role=server", why[key])


def _withoutEffect(
    section: Section, match: Mapping[str, Any], roles: Sequence[Role]
) -> Iterator[Mistake]:
    """Find keys that cannot have an effect in any request that the section is for."""
    modes = match.get("mode", tuple(AuthMode))
    for key, value in section.values.items():
        if value in (Demand.OFF, False):
            continue
        for setting, actual, effective, names in (
            ("mode", modes, KEY_MODES.get(key, modes), MODES),
            ("role", roles, KEY_ROLES.get(key, roles), ROLES),
        ):
            if not set(actual) & set(effective):
                yield section.entries[key].mistake(
                    f"{setting}={_words(effective, names)} for this key",
                    f"{setting}={_words(actual, names)}",
                    "remove the line: it can have no effect here",
                )


def _contradictions(section: Section, values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Find values that do not go together, where the section has one of them."""
    entries = section.entries
    for kind in ("x509", "x509.pq"):
        certificate, key = f"{kind}.certificate", f"{kind}.private_key"
        if certificate in entries and len(values[certificate]) != len(values[key]):
            yield entries[certificate].mistake(
                f"as many files as there are in {key}, which are {len(values[key])}",
                str(len(values[certificate])),
                f"name one for each key, in the same order; the other list is on line"
                f" {entries[key].line}",
            )
    if "token_pin" in entries and not {"x509.certificate", "x509.pq.certificate"} & set(entries):
        advice = "put it beside the keys that the PIN is for"
        yield entries["token_pin"].mistake("x509.private_key beside it", "no key", advice)
    if values.get("x509.truststore") == ():
        if not values.get("spki_pins"):
            for entry in [
                entries[key] for key in ("x509.truststore", "spki_pins") if key in entries
            ]:
                yield entry.mistake(
                    "spki_pins with x509.truststore=none",
                    "no pins, so nobody would be trusted",
                    "add spki_pins or name a trust store",
                )
        if section.values.get("x509.crl"):
            yield entries["x509.crl"].mistake(
                "none with x509.truststore=none",
                "CRLs",
                "remove the line: pins alone are compared, no chain is looked up",
            )


def _covered(
    section: Section, made: Sequence[Profile], earlier: Sequence[Profile]
) -> Iterator[Mistake]:
    """Find a section that no request gets to, as earlier ones take all that it is for."""
    covers = [
        next((other for other in earlier if _includes(other.match, profile.match)), None)
        for profile in made
    ]
    first = covers[0]
    if first and all(covers):
        yield Mistake(
            section.name,
            "",
            "requests that no profile above it takes",
            f"[{first.name}] above it, which takes all that it is for",
            section.line,
            "put the profile with more conditions first",
        )


def _includes(wide: Match, narrow: Match) -> bool:
    """Say whether a condition is plainly wider than another: each part is empty or has more."""
    pairs = [(getattr(wide, one.name), getattr(narrow, one.name)) for one in fields(Match)]
    return all(not more or (less and set(less) <= set(more)) for more, less in pairs)


def _words(values: Sequence[Any], names: Mapping[str, Any]) -> str:
    """Write values as they are in the configuration."""
    return ";".join(name for name, value in names.items() if value in values)
