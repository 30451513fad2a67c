from pathlib import Path

from setuptools import setup

about: dict[str, str] = {}
exec(Path(__file__).with_name("ktlsagent").joinpath("__init__.py").read_text(), about)  # noqa: S102

setup(
    name="ktlsagent",
    version=about["__version__"],
    description="Answers the Linux kernel's TLS handshake requests for NFS and NVMe/TCP.",
    long_description=Path(__file__).with_name("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[
        "ktlsagent",
        "ktlsagent.config",
        "ktlsagent.credentials",
        "ktlsagent.peers",
        "ktlsagent.processes",
        "ktlsagent.protocols",
        "twisted.plugins",
    ],
    package_data={"ktlsagent": ["py.typed"], "twisted": ["plugins/ktlsagent_plugin.py"]},
    install_requires=[
        # The lowest versions without known faults that matter here: see tests/audit.py.  A
        # distribution's older packages, with its own mended OpenSSL, are good as well.
        "Twisted>=24.11",
        "pyOpenSSL>=26.4",
        "cryptography>=50.0.2",
        "service-identity>=24.2",
        "idna>=3.15",
        "pyroute2>=0.8",
        "PyYAML>=6.0",
        # The module keyutils: PyPI's package of that name does not compile on
        # Python 3.11 and later; this one is the same module.
        "turkeyutils>=0.6.1",
    ],
    zip_safe=False,
)
