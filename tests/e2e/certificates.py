"""Certificates made with the openssl command, for the tests of TLS."""
import os
import subprocess

SANS = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"


def _openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60)


class Authority:
    def __init__(self, folder, name):
        self.folder, self.name, self.serial = str(folder), name, 1
        self.ca, self._key = self.path("ca.pem"), self.path("ca.key")
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", self._key,
                 "-out", self.ca)

    def path(self, name):
        return os.path.join(self.folder, f"{self.name}-{name}")

    def issue(self, name):
        """(certificate, key): files of a new pair."""
        key, request, made, sans = (self.path(f"{name}.{end}") for end in ("key", "csr", "pem", "ext"))
        self.serial += 1
        _openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                 "-keyout", key, "-out", request)
        with open(sans, "w") as file:
            file.write(SANS)
        _openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-set_serial", str(self.serial),
                 "-days", "2", "-extfile", sans, "-out", made)
        return made, key


def read(path):
    with open(path, "rb") as file:
        return file.read()


def put(source, target):
    """Replaces a file in one step, as the tools that renew certificates do."""
    with open(target + ".new", "wb") as file:
        file.write(read(source) if os.path.exists(source) else source.encode())
    os.replace(target + ".new", target)
