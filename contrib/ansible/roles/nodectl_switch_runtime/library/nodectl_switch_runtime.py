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
      - C(containerd) moves the node. C(rolled_back) undoes the last change that is done, or the one that O(change)
        names; nothing is done where none is left to undo.
      - C(resumed) and C(reverted) end a change that was cut short, by going on with it or by putting everything back;
        nothing is done where none was cut short.
    choices: [containerd, rolled_back, resumed, reverted]
    default: containerd
    type: str
  change:
    description: With O(state=rolled_back), the change to undo, by its name (the last part of RV(backup_dir)).
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
    description:
      - Go on where containers that are not Kubernetes', or pods that use Docker, are in the way.
      - With O(state=rolled_back), also put files back that somebody has changed since.
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
    description: With O(drain), the seconds that it may take.
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
notes:
  description: What was left alone. What should be known is among the warnings.
  type: list
  returned: always
refusals:
  description: All that stands in the way of a move, each with message, hint and whether O(force) goes past it.
  type: list
  returned: when the move was refused for it
"""

import json

from ansible.module_utils.basic import AnsibleModule

# Options that take a value, and those that stand alone.
VALUES = ("from", "agent", "pause_image", "cgroup_driver", "images", "kubeconfig")
SWITCHES = ("reset_config", "keep_docker", "drain", "drain_unmanaged", "delete_emptydir_data")


def flag(name, value=None):
    """The option of nodectl for one of ours; one word, so that no value is taken for an option."""
    word = "--" + name.replace("_", "-")
    return word if value is None else "%s=%s" % (word, value)


def options(params):
    """The options that say what a node is to be."""
    line = []
    for name in VALUES:
        if params[name] is not None:
            line.append(flag(name, params[name]))
    line += [flag(name) for name in SWITCHES if params[name]]
    line += [flag("registry_mirror", mirror) for mirror in params["registry_mirrors"] or []]
    if params["drain"] and params["drain_timeout"] is not None:
        line.append(flag("drain_timeout", params["drain_timeout"]))
    return line


def command(params, check_mode):
    """The command line."""
    line = [params["executable"], "switch-runtime", "--output", "json", "--yes"]
    if check_mode:
        line.append("--check")
    if params["force"]:
        line.append("--force")
    state = params["state"]
    if state == "rolled_back":
        return line + ["rollback"] + ([params["change"]] if params["change"] else [])
    return line + {"resumed": ["--resume"], "reverted": ["--rollback"]}.get(state, options(params))


def run(module, line):
    """What nodectl says: its exit code, its result, its words."""
    code, out, err = module.run_command(line)
    try:
        return code, json.loads(out), err
    except ValueError:
        pass
    if code < 0:
        message = "nodectl was ended by signal %d; the next run says what it found and how to go on" % -code
    else:
        message = err.strip() or "nodectl printed no result"
    module.fail_json(msg=message, rc=code, stdout=out, stderr=err)


def nothing_to_undo(module):
    """Whether no change of the node is done, or was cut short."""
    line = [module.params["executable"], "switch-runtime", "history", "--output", "json"]
    code, changes, err = run(module, line)
    if code:
        module.fail_json(msg=err.strip(), rc=code)
    return all(change["outcome"] == "rolled-back" for change in changes)


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {
                "choices": ["containerd", "rolled_back", "resumed", "reverted"],
                "default": "containerd",
            },
            "change": {},
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
    params = module.params
    if params["state"] == "rolled_back" and not params["change"] and nothing_to_undo(module):
        module.exit_json(changed=False, outcome="nothing-to-do", steps=[], notes=[])
    code, result, err = run(module, command(params, module.check_mode))
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
