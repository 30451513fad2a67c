"""
The root file systems of the kernel lab: built once from Debian's packages, kept,
and built anew when their recipe changes.

A root file system is a directory that L{tests.kernel.uml} boots read-only.  The
Debian mirror is the one in this machine's own apt sources, or what
C{KTLSAGENT_LAB_MIRROR} says.  Only the standard library is used here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

Progress = Callable[[str], None]
"""Told, in words, what is being done now."""

CHECKOUT: Final = Path(__file__).resolve().parents[2]
"""The checkout that this file belongs to."""

_TURKEYUTILS: Final = "turkeyutils==0.6.1"
_TLSLITE: Final = "tlslite-ng==0.8.2"
"""Debian has neither."""

_COMMON_PACKAGES: Final = (
    "gnutls-bin",
    "iproute2",
    "keyutils",
    "kmod",
    "ktls-utils",
    "nfs-common",
    "nfs-kernel-server",
    "openssl",
    "procps",
    "python3",
    "python3-cryptography",
    "python3-openssl",
    "python3-pyroute2",
    "python3-service-identity",
    "python3-twisted",
    "python3-yaml",
    "rpcbind",
)

_PACKAGES: Final = (*_COMMON_PACKAGES, "user-mode-linux")

_BUILDING: Final = ("python3-pip", "python3-setuptools", "python3-wheel")

_KEYUTILS_PACKAGES: Final = ("cython3", "gcc", "libkeyutils-dev", "python3-dev", *_BUILDING)
"""forky no longer has python3-keyutils: its successor is compiled there."""

_UNIT_PACKAGES: Final = ("python3-cryptography-vectors", "python3-ecdsa", "python3-hypothesis")
"""What the unit tests need besides, see L{tests.kernel.debian}; and L{_TLSLITE}."""

_TOKEN_PACKAGES: Final = (
    *("libtss2-tcti-swtpm0t64", "swtpm", "tpm2-openssl", "tpm2-tools"),
    *("opensc", "p11-kit", "p11-kit-modules", "pkcs11-provider", "softhsm2"),
)
"""Keys that are not in a file: a TPM and a PKCS#11 token, both of software."""

_ASYMMETRIC: Final = Path(__file__).with_name("guest") / "asymmetric.c"

_MOUNT_POINTS: Final = ("srv/ktlsagent", "run", "tmp", "var/lib/nfs", "var/log", "mnt")

_LINK_MODULES: Final = (
    'mkdir -p "$1/lib/modules"; for modules in "$1"/usr/lib/uml/modules/*; do '
    'ln -s "/usr/lib/uml/modules/${modules##*/}" "$1/lib/modules/"; done'
)
"""user-mode-linux keeps its modules where modprobe does not look."""

_FINISH: Final = (
    _LINK_MODULES,
    f'cd "$1" && mkdir -p {" ".join(_MOUNT_POINTS)}',
    'touch "$1/etc/hosts" "$1/etc/exports"',
)

_GUEST: Final = Path(__file__).with_name("guest")

_UNPACK_KERNEL: Final = (
    """chroot "$1" sh -ec 'cd /tmp; """
    """package=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/ *Depends: //p"); """
    """apt-get download -q "$package"; dpkg -x "$package"_*.deb /; rm "$package"_*.deb; """
    """release=${package#linux-image-}; depmod "$release"; """
    """mv "/boot/vmlinuz-$release" "/usr/lib/modules/$release/vmlinuz"'"""
)
"""trixie's kernel is unpacked only: it demands a generator of initial RAM disks."""

_MACHINE_FINISH: Final = (
    *_FINISH[1:],
    f'install -m 755 {shlex.quote(str(_GUEST / "machine.sh"))} "$1/sbin/machine"',
    f'install -m 644 {shlex.quote(str(_GUEST / "vmlinux.py"))} "$1/tmp/vmlinux.py"',
    'chroot "$1" python3 /tmp/vmlinux.py && rm "$1/tmp/vmlinux.py"',
)

_TOOLS: Final = {
    "mmdebstrap": "mmdebstrap",
    "taskset": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "mke2fs": "e2fsprogs",
}

_SUITE_NAMES: Final = frozenset(
    [
        *("bullseye", "bookworm", "trixie", "forky", "duke", "sid"),
        *("oldstable", "stable", "testing", "unstable"),
    ]
)


class LabError(Exception):
    """The lab cannot be built or booted; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    How a root file system is made.

    @ivar name: the Debian suite, which is also the recipe's name.
    @ivar kernel: the kernel's version, as people say it.
    @ivar packages: what is installed.
    @ivar pythonSources: source distributions from PyPI that are compiled into it.
    @ivar pythonWheels: wheels from PyPI, of Python alone, that are put into it.
    @ivar preloads: C sources that are compiled into /usr/local/lib/lab/NAME.so.
    @ivar programs: C sources that are compiled, with OpenSSL, into
        /usr/local/lib/lab/NAME.
    @ivar headers: what these include besides.
    @ivar bootOptions: what this kernel's command line needs besides.
    @ivar suite: the Debian suite, if it is not the name.
    @ivar finish: commands that run, outside, when all is installed.
    @ivar borrowed: suites and packages that are unpacked into /opt/SUITE.
    @ivar machine: whether it is for a whole machine: a disk image and a kernel
        that starts by itself, instead of a directory.
    """

    name: str
    kernel: str
    packages: tuple[str, ...]
    pythonSources: tuple[str, ...] = ()
    pythonWheels: tuple[str, ...] = ()
    preloads: tuple[Path, ...] = ()
    programs: tuple[Path, ...] = ()
    headers: tuple[Path, ...] = ()
    bootOptions: tuple[str, ...] = ()
    suite: str = ""
    finish: tuple[str, ...] = _FINISH
    borrowed: tuple[tuple[str, str], ...] = ()
    machine: bool = False

    @property
    def sources(self) -> tuple[Path, ...]:
        """All that is compiled."""
        return (*self.headers, *self.preloads, *self.programs)

    @property
    def digest(self) -> str:
        """A short hash of everything that decides what is built."""
        sources = (path.read_text() for path in self.sources)
        parts = [self.name, *self.packages, *self.pythonSources, *self.pythonWheels]
        parts += sources
        parts += [command.replace(str(_GUEST), "") for command in self.finish]
        parts += [word for pair in self.borrowed for word in pair]
        if self.machine:
            parts += [(_GUEST / name).read_text() for name in ("machine.sh", "vmlinux.py")]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


_FORKY_PACKAGES: Final = (*_PACKAGES, *_KEYUTILS_PACKAGES, *_TOKEN_PACKAGES)
FORKY: Final = Recipe(
    "forky",
    "7.2",
    (*_FORKY_PACKAGES, *_UNIT_PACKAGES),
    pythonSources=(_TURKEYUTILS,),
    pythonWheels=(_TLSLITE,),
    bootOptions=("seccomp=on",),
)
TRIXIE: Final = Recipe(
    "trixie",
    "6.12",
    (*_PACKAGES, "python3-keyutils", "gcc", "libc6-dev", *_BUILDING, *_UNIT_PACKAGES),
    pythonWheels=(_TLSLITE,),
    preloads=(_ASYMMETRIC,),
)
OLDER_MACHINE: Final = Recipe(
    "oldermachine",
    "6.12",
    (*_COMMON_PACKAGES, "python3-keyutils", "zstd"),
    suite="trixie",
    finish=(_UNPACK_KERNEL, *_MACHINE_FINISH),
    machine=True,
)
MACHINE: Final = Recipe(
    "machine",
    "7.2",
    (
        *(*_COMMON_PACKAGES, *_KEYUTILS_PACKAGES, "nvme-cli", "zstd"),
        # Not linux-image-cloud-amd64, see L{_UNPACK_KERNEL}.
        "?name(^linux-binary-[0-9].*[0-9]-cloud-amd64$)",
        "?name(^linux-modules-[0-9].*[0-9]-cloud-amd64$)",
    ),
    pythonSources=(_TURKEYUTILS,),
    # A device for each controller, not for all that lead to the same subsystem.
    bootOptions=("nvme_core.multipath=0",),
    suite="forky",
    finish=_MACHINE_FINISH,
    # tlshd 1.4.0 cannot use certificates from a keyring, 1.0.0 can.
    borrowed=(("trixie", "ktls-utils"),),
    machine=True,
)
MANAGED: Final = Recipe(
    "managed",
    "7.2",
    (*_PACKAGES, *_KEYUTILS_PACKAGES, "systemd"),
    pythonSources=(_TURKEYUTILS,),
    # The kernel hands what it does not know to the first process.
    bootOptions=(*FORKY.bootOptions, "LAB_MANAGER=/usr/lib/systemd/systemd"),
    suite="forky",
)
_BENCH: Final = Path(__file__).with_name("bench")
BENCH: Final = Recipe(
    "bench",
    "7.2",
    (*_FORKY_PACKAGES, "ca-certificates", "libc6-dev", "libssl-dev"),
    pythonSources=(_TURKEYUTILS,),
    preloads=(_BENCH / "stub.c",),
    programs=tuple(_BENCH / f"{name}.c" for name in ("floor", "load", "upcall")),
    headers=(_BENCH / "stub.h",),
    bootOptions=FORKY.bootOptions,
    suite="forky",
)
RECIPES: Final = {
    recipe.name: recipe for recipe in (FORKY, TRIXIE, OLDER_MACHINE, MANAGED, MACHINE, BENCH)
}


def labDirectory() -> Path:
    """
    Say where root file systems are kept.

    @return: a directory, which need not exist yet.
    """
    named = os.environ.get("KTLSAGENT_LAB")
    if named:
        return Path(named).resolve()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "ktlsagent" / "lab"


def checkHost() -> None:
    """
    Make sure that this machine can build and boot the lab.

    @raise LabError: if not; the message has everything that is missing.
    """
    missing = []
    if os.geteuid() != 0:
        missing.append("the lab needs root (it mounts and uses chroot): run it with sudo")
    packages = {package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    if packages:
        missing.append(f"tools are missing: apt-get install {' '.join(sorted(packages))}")
    if os.uname().machine != "x86_64":
        missing.append(f"user-mode Linux needs an x86_64 machine, this is {os.uname().machine}")
    if missing:
        raise LabError("; ".join(missing))


def _sources(directory: Path) -> Iterator[tuple[str, str, str, str]]:
    """
    Read apt's sources in both formats.

    @param directory: usually C{/etc/apt}.
    @return: URI, suite, components and key ring of every binary source.
    """
    lists = [directory / "sources.list", *sorted(directory.glob("sources.list.d/*.list"))]
    for path in (path for path in lists if path.is_file()):
        for line in path.read_text(errors="replace").splitlines():
            match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line.strip())
            if match:
                yield match[2], match[3], match[4], match[1] or ""
    for path in sorted(directory.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            kept = [line for line in stanza.splitlines() if not line.startswith("#")]
            unfolded = re.sub(r"\n[ \t]+", " ", "\n".join(kept))
            pairs = (line.partition(":") for line in unfolded.splitlines())
            fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
            if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
                continue
            for uri in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    yield uri, suite, fields.get("components", ""), fields.get("signed-by", "")


def debianMirror(directory: Path = Path("/etc/apt")) -> str:
    """
    Find the Debian mirror that this machine itself uses.

    @param directory: apt's configuration.
    @return: its URI.
    @raise LabError: if there is none.
    """
    named = os.environ.get("KTLSAGENT_LAB_MIRROR")
    if named:
        return named
    for uri, suite, components, keyring in _sources(directory):
        # Other vendors use Debian's suite names, too: only Debian's archive is in
        # a directory of that name or signed by that key ring.
        debian = urlsplit(uri).path.rstrip("/").endswith("/debian") or "debian-archive" in keyring
        if debian and suite in _SUITE_NAMES and "main" in components.split():
            return uri
    raise LabError(
        f"no Debian mirror found in {directory}/sources.list or {directory}/sources.list.d; "
        "set KTLSAGENT_LAB_MIRROR to the URI of one"
    )


def _proxyOptions() -> Iterator[str]:
    """
    Find the proxies that this machine's apt uses, for the apt inside.

    @return: options for mmdebstrap.
    """
    command = ["apt-config", "dump", "Acquire::http::Proxy", "Acquire::https::Proxy"]
    try:
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return
    for line in dump.splitlines():
        if re.match(r'Acquire::https?::Proxy "[^"]+";', line):
            yield f"--aptopt={line.rstrip(';')}"


def _follow(command: list[str], progress: Progress) -> None:
    """
    Run a command and report its lines as progress.

    @param command: the command.
    @param progress: told every line that announces a step, and that time passes.
    @raise LabError: if it fails; with the end of its output.
    """
    tail: list[str] = []
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        text = line.rstrip().rpartition("\r")[2]
        tail = [*tail[-39:], text]
        if "hook" in text:
            if "pip install" in text or "gcc" in text:
                progress("  compiling what Debian does not have")
        elif text.startswith("I: ") and not re.search("auto|chroot arch|signed-by|success", text):
            progress(f"  {text.removeprefix('I: ')}")
    if process.wait():
        output = "\n".join(tail)
        advice = ""
        if re.search(r"NO_PUBKEY|not signed|sqv|gpgv", output):
            advice = (
                "; the archive's signature was not accepted: this machine's key ring is too old, "
                "apt-get install --only-upgrade debian-archive-keyring (2025.1 or newer)"
            )
        elif re.search(
            r"Temporary failure|Could not connect|Unable to fetch|Failed to fetch", output
        ):
            advice = "; the mirror was not reached: is the network up, does apt-get update work?"
        raise LabError(
            f"{command[0]} failed with exit status {process.returncode}{advice}\n{output}"
        )


def _download(requirement: str, directory: Path, form: str, progress: Progress) -> Path:
    """
    Fetch a distribution from the package index that pip is set to.

    @param requirement: name and version.
    @param directory: where to put it.
    @param form: C{--no-binary} for a source distribution, C{--only-binary} for a wheel.
    @param progress: told about it.
    @return: the file.
    @raise LabError: if pip is missing or fails.
    """
    progress(f"  downloading {requirement} from the Python package index")
    name = requirement.partition("==")[0]
    pythons = [sys.executable, str(CHECKOUT / ".venv/bin/python"), "/usr/bin/python3"]
    pythons = [python for python in pythons if os.access(python, os.X_OK)]
    for python in pythons:
        asked = [python, "-m", "pip", "--version"]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            break
    else:
        raise LabError("pip is missing: apt-get install python3-pip")
    command = [python, "-m", "pip", "download", "--quiet", "--no-deps", form, name]
    command += ["--dest", str(directory), requirement]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(directory.glob(f"{name.replace('-', '_')}-*"))
    if ran.returncode or not found:
        raise LabError(f"pip could not download {requirement}:\n{ran.stdout}{ran.stderr}")
    return found[0]


def _inside(file: Path, command: str) -> list[str]:
    """
    Say how to work with a file of the host inside the root file system.

    @param file: put into C{/root} for the while.
    @param command: run inside.
    @return: hooks for mmdebstrap.
    """
    return [f"copy-in {file} /root", f'chroot "$1" {command}', f'rm "$1/root/{file.name}"']


def _compile(recipe: Recipe) -> list[str]:
    """
    Say how to compile a recipe's C sources.

    @param recipe: the recipe.
    @return: hooks for mmdebstrap.
    """
    built = "/usr/local/lib/lab"
    commands = [
        f"mkdir -p {built}",
        *(
            f"gcc -shared -fPIC -O2 -Wall -o {built}/{path.stem}.so {path.name}"
            for path in recipe.preloads
        ),
        *(
            f"gcc -O2 -Wall -o {built}/{path.stem} {path.name} -lssl -lcrypto"
            for path in recipe.programs
        ),
    ]
    files = recipe.sources
    if not files:
        return []
    script = " && ".join(["cd /root", *commands])
    names = " ".join(f'"$1/root/{path.name}"' for path in files)
    return [
        f"copy-in {' '.join(map(str, files))} /root",
        f"chroot \"$1\" sh -c '{script}'",
        f"rm {names}",
    ]


def _borrow(suite: str, package: str, mirror: str) -> list[str]:
    """
    Say how to unpack a package of another suite beside those that are installed.

    @param suite: the suite.
    @param package: the package.
    @param mirror: where from.
    @return: hooks for mmdebstrap.
    """
    source = "/etc/apt/sources.list.d/borrowed.list"
    fetched = (
        f"cd /tmp && apt-get update -q && apt-get download -q {package}/{suite}"
        f" && dpkg -x {package}_*.deb /opt/{suite} && rm {package}_*.deb {source}"
    )
    return [f'echo deb {mirror} {suite} main >"$1{source}"', f'chroot "$1" sh -c "{fetched}"']


def _pack(directory: Path, progress: Progress) -> None:
    """
    Turn a root file system into what a whole machine boots from.

    @param directory: the root file system; replaced by one with the kernel,
        C{vmlinux}, and the disk image, C{root.ext4}.
    @param progress: told about it.
    """
    progress("  packing the disk image")
    tree = directory.with_name(directory.name + ".tree")
    shutil.rmtree(tree, ignore_errors=True)
    directory.rename(tree)
    directory.mkdir()
    (tree / "boot/vmlinux").rename(directory / "vmlinux")
    command = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(tree)]
    _follow([*command, str(directory / "root.ext4"), "3G"], progress)
    shutil.rmtree(tree)


def _build(recipe: Recipe, target: Path, progress: Progress) -> None:
    """
    Build a root file system.

    @param recipe: how.
    @param target: the directory to make.
    @param progress: told about each step.
    """
    work = target.with_name(target.name + ".download")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    hooks = []
    try:
        wanted = [(requirement, "--no-binary") for requirement in recipe.pythonSources]
        wanted += [(requirement, "--only-binary") for requirement in recipe.pythonWheels]
        for requirement, form in wanted:
            source = _download(requirement, work, form, progress)
            install = "python3 -m pip install --no-deps --no-index --no-build-isolation"
            install += " --break-system-packages --root-user-action=ignore"
            hooks += _inside(source, f"{install} /root/{source.name}")
        hooks += _compile(recipe)
        command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
        # The Release file of a suite in development may be past its Valid-Until.
        command += [
            '--aptopt=Acquire::Check-Valid-Until "false"',
            "--aptopt=Acquire::Languages none",
        ]
        command += [
            f"--dpkgopt=path-exclude={path}"
            for path in ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
        ]
        command += _proxyOptions()
        mirror = debianMirror()
        for suite, package in recipe.borrowed:
            hooks += _borrow(suite, package, mirror)
        command += [f"--customize-hook={hook}" for hook in (*recipe.finish, *hooks)]
        _follow([*command, recipe.suite or recipe.name, str(target), mirror], progress)
        if recipe.machine:
            _pack(target, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep(directory: Path, *, alone: bool = False) -> bool:
    """
    Keep a root file system from being removed while this process runs: another checkout,
    whose recipe is another one, may build its own.

    @param directory: the root file system.
    @param alone: whether nobody else may use it.
    @return: whether that is so.
    """
    # Not closed: the lock ends with the process.
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


def rootFileSystem(recipe: Recipe, progress: Progress) -> Path:
    """
    Return a root file system; build it if there is none of this recipe yet.

    @param recipe: which one.
    @param progress: told about each step that takes time.
    @return: its directory, which must not be changed.
    @raise LabError: if it cannot be built.
    """
    checkHost()
    lab = labDirectory()
    lab.mkdir(parents=True, exist_ok=True)
    target = lab / f"{recipe.name}-{recipe.digest}"
    with (lab / f"{recipe.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another build of {recipe.name} to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            _keep(target)
            return target
        progress(
            f"building the {recipe.name} root file system once "
            f"(kernel {recipe.kernel}, a minute or two)"
        )
        started = time.monotonic()
        for stale in lab.glob(f"{recipe.name}-*"):
            if _keep(stale, alone=True):
                shutil.rmtree(stale, ignore_errors=True)
        partial = lab / f"{recipe.name}-partial"
        _build(recipe, partial, progress)
        partial.rename(target)
        _keep(target)
        progress(f"built in {time.monotonic() - started:.0f} s, kept in {target}")
    return target


def main() -> None:
    """Build the root file systems named on the command line, or all."""

    def progress(text: str) -> None:
        print(text, flush=True)

    try:
        for name in sys.argv[1:] or RECIPES:
            progress(f"{name}: {rootFileSystem(RECIPES[name], progress)}")
    except LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
