"""A Dovecot for the length of a block, where Debian's dovecot-imapd is installed: a mail server as people run them.

One account, its mail below ``folder``; plain, with STARTTLS and, given a certificate, with TLS on a second port.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from stack.imap import HOST, PASSWORD, MailServer
from stack.network import accepts, free_port

BINARY = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
READY_SECONDS = 10.0


@contextlib.contextmanager
def serving() -> Iterator[MailServer]:
    """Needs BINARY; as root the mail belongs to nobody, since Dovecot reads none as root."""
    assert BINARY is not None
    me = pwd.getpwuid(os.getuid() or pwd.getpwnam("nobody").pw_uid)
    group = "nogroup" if os.getuid() == 0 else str(me.pw_gid)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="millrace-dovecot-") as name:  # its socket's path has to be short
        folder = Path(name)
        mail = folder / "mail"
        mail.mkdir()
        (folder / "users").write_text(f"recordings:{{PLAIN}}{PASSWORD}\n")
        if os.getuid() == 0:
            folder.chmod(0o755)
            os.chown(mail, me.pw_uid, -1)
        config = folder / "dovecot.conf"
        config.write_text(f"""
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = imap
listen = {HOST}
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{mail}
mail_fsync = never
mail_uid = {me.pw_uid}
mail_gid = {group}
first_valid_uid = 1
first_valid_gid = 1
default_internal_user = {me.pw_name if os.getuid() else "dovecot"}
default_internal_group = {group if os.getuid() else "dovecot"}
default_login_user = {me.pw_name if os.getuid() else "dovenull"}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid={me.pw_uid} gid={group} home={mail}
}}
""")
        process = subprocess.Popen([BINARY, "-F", "-c", str(config)])
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not accepts(port):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            yield MailServer(port, "recordings", PASSWORD)
        finally:
            process.terminate()
            process.wait(10)
