"""Proxies that lead out of a network: squid (CONNECT) and dante (SOCKS5) from Debian. Each needs a user and a password
unless `login` is false, knows DOMAIN as this machine, and forbids FORBIDDEN."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import needs
from .cok import DOMAIN
from .ports import accepts, free_port
from .process import Process, wait_for

USER, PASSWORD = "ada", "p@ss:w/ord"
FORBIDDEN = "forbidden.test"
HOSTS = f"127.0.0.1 localhost {DOMAIN}\n127.0.0.9 {FORBIDDEN}\n"


def _user(name):
    """Skips the running test if this machine has no such user."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return needs.lacking(f"the user {name}")


class _Proxy:
    # `address` is where it listens; `asked` returns what it has logged.
    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cok-proxy-"))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = self.folder / "log"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def url(self, scheme, login="ada:p%40ss%3Aw%2Ford@"):
        return f"{scheme}://{login}{self.address}"

    def _run(self, *command):
        self.process = Process(*command)
        wait_for(self._accepts, "the proxy accepts connections")

    def _accepts(self):
        assert self.process.popen.poll() is None, self.process.output()
        return accepts(self.port)

    def asked(self):
        return self.log.read_text() if self.log.exists() else ""

    def stop(self):
        self.process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Squid(_Proxy):
    """With `certificate` (its files of certificate and key) it speaks TLS. With `reads_along` it ends the TLS of its
    users, with certificates of its own authority from these files."""

    def __init__(self, login=True, certificate=None, reads_along=None):
        needs.command("squid")
        # squid gives up root for this user, who must read and write in the folder.
        user = _user("proxy") if os.geteuid() == 0 else None
        super().__init__()
        listen, more = f"http_port {self.address}", ""
        if certificate:
            cert, key = self._copied(*certificate)
            listen = f"https_port {self.address} tls-cert={cert} tls-key={key}"
        elif reads_along:
            cert, key = self._copied(*reads_along)
            listen += f" ssl-bump tls-cert={cert} tls-key={key} generate-host-certificates=on"
            program, store = "/usr/lib/squid/security_file_certgen", self.folder / "certificates"
            subprocess.run([program, "-c", "-s", store, "-M", "4MB"], check=True, capture_output=True, timeout=20)
            more = f"sslcrtd_program {program} -s {store} -M 4MB\nssl_bump bump all\n"
        if login:
            salted = subprocess.run(
                ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD, text=True, capture_output=True, check=True
            )
            (self.folder / "users").write_text(f"{USER}:{salted.stdout}")
            more += f"auth_param basic program /usr/lib/squid/basic_ncsa_auth {self.folder / 'users'}\n"
            more += "acl known proxy_auth REQUIRED\nhttp_access deny !known\n"
        (self.folder / "hosts").write_text(HOSTS)
        config = self.folder / "squid.conf"
        config.write_text(
            f"""{listen}
{more}
acl forbidden dstdomain {FORBIDDEN}
http_access deny forbidden
http_access allow all
hosts_file {self.folder / "hosts"}
dns_nameservers 127.0.0.1
dns_timeout 1 seconds
pid_filename none
cache_log /dev/null
access_log stdio:{self.log}
cache deny all
shutdown_lifetime 0 seconds
"""
        )
        if user:
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
        self._run("squid", "-N", "-f", config)

    def _copied(self, *files):
        return [shutil.copy(file, self.folder) for file in files]


class Dante(_Proxy):
    """Asks for the passwords of this machine's users, so it runs with lists of its own in place of the machine's."""

    def __init__(self, login=True):
        needs.root("only root can give Dante lists of users")
        needs.command("danted")
        super().__init__()
        secret = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, text=True, capture_output=True, check=True
        ).stdout.strip()
        (self.folder / "passwd").write_text(Path("/etc/passwd").read_text() + f"{USER}:x:65000:65534::/:/bin/false\n")
        (self.folder / "shadow").write_text(f"{USER}:{secret}:19000:0:99999:7:::\n")
        (self.folder / "hosts").write_text(HOSTS)
        config = self.folder / "danted.conf"
        config.write_text(
            f"""
logoutput: {self.log}
internal: 127.0.0.1 port = {self.port}
external: 127.0.0.1
clientmethod: none
socksmethod: {"username" if login else "none"}
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 0/0 to: 0/0 }}
socks block {{
    from: 0/0 to: {FORBIDDEN}
    log: connect error
}}
socks pass {{
    from: 0/0 to: 0/0
    protocol: tcp
    log: connect error
}}
"""
        )
        binds = " && ".join(f"mount --bind {self.folder}/{name} /etc/{name}" for name in ("passwd", "shadow", "hosts"))
        self._run("unshare", "--mount", "sh", "-c", f"{binds} && exec danted -f {config}")
