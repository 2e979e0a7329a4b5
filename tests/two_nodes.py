"""Two nodes on one machine: network namespaces with an address each, joined by a cable (veth)."""

import contextlib
import os
import shutil
import signal
import subprocess

from tests.stages import ROOT, environment

NAMES = ("rlhf_node0", "rlhf_node1")
ADDRESSES = ("10.77.31.1", "10.77.31.2")
CABLE = "cable0"


def why_not():
    """Why this machine can't have them, or ''."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "needs root and `ip` (Debian: iproute2)"
    probe = subprocess.run(["ip", "netns", "add", "rlhf_probe"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", "rlhf_probe"], capture_output=True)
    return f"no network namespaces here: {probe.stderr.strip()}" if probe.returncode else ""


def ip(*words, node=None):
    inside = [] if node is None else ["-n", NAMES[node]]
    subprocess.run(["ip", *inside, *words], check=True, capture_output=True)


@contextlib.contextmanager
def two_nodes(folder):
    """Sets them up; yields the hostfile."""
    for name in NAMES:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip(
            *("link", "add", CABLE, "netns", NAMES[0], "type", "veth"),
            *("peer", "name", CABLE, "netns", NAMES[1]),
        )
        for node, address in enumerate(ADDRESSES):
            ip("addr", "add", f"{address}/24", "dev", CABLE, node=node)
            ip("link", "set", "lo", "up", node=node)
            ip("link", "set", CABLE, "up", node=node)
        hostfile = folder / "hosts"
        hostfile.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
        yield hostfile
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def start(node, *command, **more):
    """A command on a node, in a session of its own."""
    clean = {name: v for name, v in environment(**more).items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        ["ip", "netns", "exec", NAMES[node], *map(str, command)],
        cwd=ROOT,
        env={**clean, "GLOO_SOCKET_IFNAME": CABLE, "DS_ACCELERATOR": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process):
    """Ends what a test has left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def ssh_between(folder):
    """An sshd in each node, with keys of its own; yields its port, and a folder with an `ssh`."""
    keys, port = folder / "ssh", 2222
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)], check=True
        )
    config = keys / "sshd_config"
    config.write_text(
        f"Port {port}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/user.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
    )
    os.makedirs("/run/sshd", exist_ok=True)
    daemons = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, shutil.which("sshd"), "-D", "-e", "-f", str(config)],
            stderr=subprocess.DEVNULL,
        )
        for name in NAMES
    ]
    # pdsh and DeepSpeed's own check both call `ssh`: a command before the real one gives the key.
    tools = folder / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(
        f"#!/bin/sh\nexec {shutil.which('ssh')} -i {keys}/user -o StrictHostKeyChecking=no "
        '-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "$@"\n'
    )
    (tools / "ssh").chmod(0o755)
    try:
        yield port, tools
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait()
