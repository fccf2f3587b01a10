"""How the tests' Ansible reaches a machine of hack/machine.sh: as SSH reaches a node, but through its namespaces.

Ansible itself runs outside, as it does for a node, which has Python and nodectl and nothing of Ansible's.
"""

from __future__ import annotations

import shlex
import subprocess

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: machine
short_description: Run tasks in a machine of hack/machine.sh
description:
  - Run tasks in a machine of hack/machine.sh.
options:
  remote_user:
    description: Who the commands run as; nobody else is there.
    default: root
    vars:
      - name: ansible_user
  script:
    description: hack/machine.sh.
    required: true
    vars:
      - name: machine_script
  folder:
    description: The machine's folder.
    required: true
    vars:
      - name: machine_folder
"""


class Connection(ConnectionBase):
    """A machine."""

    transport = "machine"
    has_pipelining = False

    def _connect(self):
        self._connected = True
        return self

    def close(self):
        self._connected = False

    def _run(self, command, stdin=b""):
        line = [self.get_option("script"), "run", self.get_option("folder"), "/bin/sh", "-c", command]
        return subprocess.run(line, input=stdin, capture_output=True, check=False)

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._run(cmd, in_data or b"")
        return done.returncode, done.stdout, done.stderr

    def _must(self, command, stdin=b""):
        done = self._run(command, stdin)
        if done.returncode:
            raise AnsibleConnectionFailure("%s: %s" % (command, done.stderr.decode(errors="replace")))
        return done.stdout

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        with open(in_path, "rb") as file:
            self._must("cat >" + shlex.quote(out_path), file.read())

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        with open(out_path, "wb") as file:
            file.write(self._must("cat <" + shlex.quote(in_path)))
