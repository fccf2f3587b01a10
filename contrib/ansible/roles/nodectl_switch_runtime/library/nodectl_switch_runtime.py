#!/usr/bin/python
# Licensed under the Apache License, Version 2.0.
"""Ansible module: moves a Kubernetes node from Docker to containerd with nodectl."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: nodectl_switch_runtime
short_description: Move a Kubernetes node from Docker to containerd, or put everything back
description:
  - Runs C(nodectl switch-runtime) on the node. A node that is as asked already is not changed.
  - A step that fails is taken back by nodectl with all before it; the task fails, and the node is as it was.
  - Check mode and diff are served; nothing is changed in check mode.
options:
  state:
    description:
      - C(containerd) moves the node. C(rolled_back) undoes the last move that is done.
      - C(resumed) and C(reverted) end a move that was cut short, by going on with it or by putting everything back.
    choices: [containerd, rolled_back, resumed, reverted]
    default: containerd
    type: str
  from:
    description: The runtime that the node has; found out by itself.
    choices: [docker, cri-dockerd, containerd]
    type: str
  agent:
    description: What runs the pods afterwards.
    choices: [kubelet, nodectl]
    type: str
  pause_image:
    description: The image of pods' sandboxes; the one in use if left away.
    type: str
  cgroup_driver:
    description: The cgroup driver of containerd and the kubelet.
    choices: [auto, systemd, cgroupfs]
    type: str
  registry_mirrors:
    description: Mirrors, each as URL for docker.io or as REGISTRY=URL.
    type: list
    elements: str
  images:
    description: The images that go from Docker to containerd.
    choices: [all, running, none]
    type: str
  reset_config:
    description: Begin containerd's configuration anew, from its default.
    type: bool
    default: false
  keep_docker:
    description: Leave Docker running and started with the node.
    type: bool
    default: false
  force:
    description: Go on where containers that are not Kubernetes', or pods that use Docker, are in the way.
    type: bool
    default: false
  kubeconfig:
    description: A file on the node with credentials for the API server.
    type: path
  drain:
    description: Cordon the node and move its pods elsewhere first. Needs O(kubeconfig).
    type: bool
    default: false
  drain_timeout:
    description: Seconds that the drain may take.
    type: int
  drain_unmanaged:
    description: With O(drain), also pods that nothing would make again.
    type: bool
    default: false
  delete_emptydir_data:
    description: With O(drain), also pods with emptyDir volumes, whose data are lost.
    type: bool
    default: false
  executable:
    description: The nodectl to run.
    type: str
    default: nodectl
"""

EXAMPLES = r"""
- name: Move the node to containerd
  nodectl_switch_runtime:
    pause_image: registry.k8s.io/pause:3.9

- name: Put everything back
  nodectl_switch_runtime:
    state: rolled_back
"""

RETURN = r"""
outcome:
  description: C(done), C(nothing-to-do), C(planned), C(refused), C(rolled-back) or C(failed).
  type: str
  returned: always
steps:
  description: The steps, each with its sentence and what it acts on.
  type: list
  returned: always
backup_dir:
  description: The folder on the node with the journal and the files as they were.
  type: str
  returned: when something was changed
warnings:
  description: What should be known.
  type: list
  returned: always
notes:
  description: What was left alone.
  type: list
  returned: always
"""

import json

from ansible.module_utils.basic import AnsibleModule

# Options that take a value, and those that stand alone.
VALUES = ("from", "agent", "pause_image", "cgroup_driver", "images", "kubeconfig")
SWITCHES = ("reset_config", "keep_docker", "drain_unmanaged", "delete_emptydir_data")


def flag(name):
    """The option of nodectl for one of ours."""
    return "--" + name.replace("_", "-")


def command(params, check_mode):
    """The command line."""
    line = [params["executable"], "switch-runtime"]
    state = params["state"]
    if state == "rolled_back":
        line.append("rollback")
    elif state == "resumed":
        line.append("--resume")
    elif state == "reverted":
        line.append("--rollback")
    else:
        for name in VALUES:
            if params[name] is not None:
                line += [flag(name), params[name]]
        for name in SWITCHES:
            if params[name]:
                line.append(flag(name))
        for mirror in params["registry_mirrors"] or []:
            line += ["--registry-mirror", mirror]
        if params["drain"]:
            line.append("--drain")
            if params["drain_timeout"] is not None:
                line += ["--drain-timeout", str(params["drain_timeout"])]
    if params["force"]:
        line.append("--force")
    line += ["--output", "json", "--yes"]
    if check_mode and state in ("containerd", "rolled_back"):
        line.append("--check")
    return line


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {
                "choices": ["containerd", "rolled_back", "resumed", "reverted"],
                "default": "containerd",
            },
            "from": {"choices": ["docker", "cri-dockerd", "containerd"]},
            "agent": {"choices": ["kubelet", "nodectl"]},
            "pause_image": {},
            "cgroup_driver": {"choices": ["auto", "systemd", "cgroupfs"]},
            "registry_mirrors": {"type": "list", "elements": "str"},
            "images": {"choices": ["all", "running", "none"]},
            "reset_config": {"type": "bool", "default": False},
            "keep_docker": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "kubeconfig": {"type": "path"},
            "drain": {"type": "bool", "default": False},
            "drain_timeout": {"type": "int"},
            "drain_unmanaged": {"type": "bool", "default": False},
            "delete_emptydir_data": {"type": "bool", "default": False},
            "executable": {"default": "nodectl"},
        },
        required_if=[("drain", True, ("kubeconfig",))],
        supports_check_mode=True,
    )
    if module.check_mode and module.params["state"] in ("resumed", "reverted"):
        # What a move that was cut short would become is known only by doing it.
        module.exit_json(changed=True, outcome="planned", steps=[], notes=[])
    code, out, err = module.run_command(command(module.params, module.check_mode))
    try:
        result = json.loads(out)
    except ValueError:
        module.fail_json(msg=err.strip() or "nodectl printed no result", rc=code, stdout=out)
    answer = {key: result[key] for key in result if key not in ("diff", "error", "warnings")}
    for warning in result.get("warnings", []):
        module.warn(warning)
    if module._diff and result.get("diff"):
        answer["diff"] = {"prepared": result["diff"]}
    if code:
        module.fail_json(msg=result.get("error") or err.strip(), rc=code, **answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
