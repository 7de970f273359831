"""Who may reach the scheduler verbs: this machine, or whoever shows a client certificate.

Whoever reaches them can bind pods, so beyond the loopback addresses nothing answers without one.
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from extender.config import Settings
from extender.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate and key, and the authority whose clients it believes; PEM files."""

    cert: Path
    key: Path
    client_ca: Path

    @classmethod
    def of(cls, settings: Settings) -> "Tls | None":
        """None where the settings name no file. Raises InputError if a file is missing or is not what it should be."""
        files = {
            "tls-cert-file": settings.tls_cert_file,
            "tls-key-file": settings.tls_key_file,
            "tls-client-ca-file": settings.tls_client_ca_file,
        }
        given = [file for file in files.values() if file is not None]
        if not given:
            return None
        if len(given) < len(files):
            missing = next(name for name, file in files.items() if file is None)
            raise InputError(f"{missing}: must be set where another tls setting is")
        tls = cls(*given)
        tls._check()
        return tls

    def options(self) -> Mapping[str, Any]:
        """For uvicorn.Config."""
        return {
            "ssl_certfile": str(self.cert),
            "ssl_keyfile": str(self.key),
            "ssl_ca_certs": str(self.client_ca),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }

    def _check(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_verify_locations(self.client_ca)
        except OSError as error:  # ssl.SSLError is one
            raise InputError(f"tls-client-ca-file: {self.client_ca}: {error.strerror or error}") from error
        try:
            context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except OSError as error:
            raise InputError(
                f"tls-cert-file, tls-key-file: {self.cert}, {self.key}: {error.strerror or error}"
            ) from error


def guard(listening: socket.socket, tls: Tls | None) -> None:
    """Raises InputError for a listener that others could reach without a certificate."""
    address = listening.getsockname()[0]
    if tls is None and not ip_address(address.partition("%")[0]).is_loopback:
        raise InputError(
            f"host: {address} can be reached from elsewhere: "
            "set tls-cert-file, tls-key-file and tls-client-ca-file, or use 127.0.0.1"
        )
