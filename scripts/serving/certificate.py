"""One self-signed certificate for 127.0.0.1 and localhost, which is its own authority."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from serving.errors import NotInstalled, ServingError


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path

    def pem(self) -> str:
        return self.key.read_text() + self.certificate.read_text()


def certificate(folder: Path) -> Certificate:
    """The folder's certificate, made when it is not there yet. It is valid for ten days."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    if made.certificate.exists():
        return made
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "10", "-subj", "/CN=localhost", "-keyout", str(made.key), "-out", str(made.certificate)]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise NotInstalled("openssl is not installed. Run: scripts/servers install") from None
    except subprocess.CalledProcessError as error:
        raise ServingError(f"openssl made no certificate:\n{error.stderr}") from error
    return made
