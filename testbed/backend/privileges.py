"""Getting the right to make namespaces: root has it, others make a user namespace in which they have it.

Rootless, the process moves into a user, mount and network namespace of its own, where it is root and
``/run/netns`` is its own, so that everything else works unchanged. All that it makes vanishes with the last
process in there. A lab that is to stay keeps one process for that, the *holder*; later commands enter the
lab's namespaces through it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from testbed.backend.ownership import LabRecord, NamespaceRecord, ProcessRecord, open_namespace
from testbed.backend.runtime import NAMESPACE_DIRECTORY, RUNTIME_VARIABLE, runtime_root
from testbed.backend.system import (
    CAP_NET_ADMIN,
    CAP_SYS_ADMIN,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MS_BIND,
    MS_REC,
    MS_SLAVE,
    has_capability,
    mount,
    setns,
    unshare,
)
from testbed.errors import CapabilityError, LabError

USER_NAMESPACE_VARIABLE = "MPTCP_TESTBED_USER_NAMESPACE"
"""Set in the environment of everything that runs in a user namespace of the testbed's own."""

HOLDER_ROLE = "holder of the namespaces"


def is_in_own_user_namespace() -> bool:
    """Whether this process runs in a user namespace that :func:`ensure_privileges` made or entered."""
    return os.environ.get(USER_NAMESPACE_VARIABLE) == _user_namespace()


def _user_namespace() -> str:
    return str(Path("/proc/self/ns/user").stat().st_ino)


def has_privileges() -> bool:
    """Whether namespaces, mounts and links can be made here as it is."""
    return has_capability(CAP_SYS_ADMIN) and has_capability(CAP_NET_ADMIN)


def ensure_privileges() -> None:
    """Make sure that labs can be built from here on. To be called before the first thread exists.

    Does nothing for root. Raises CapabilityError, which says what would help, without user namespaces.
    """
    if has_privileges():
        return
    # Chosen while the user still has his own name: inside he is root, and would be given root's directory.
    os.environ[RUNTIME_VARIABLE] = str(runtime_root())
    enter_new_user_namespace()


def enter_new_user_namespace() -> None:
    """Become root of a new user, mount and network namespace. Raises CapabilityError."""
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
    except OSError as error:
        raise _refused(error) from error
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        _own_namespace_directory()
    except OSError as error:
        raise CapabilityError(
            f"a user namespace can be made, but not used ({error.strerror}: {error.filename}); on Ubuntu"
            " 'sysctl kernel.apparmor_restrict_unprivileged_userns=0' (as root) allows it, or run as root"
        ) from error
    os.environ[USER_NAMESPACE_VARIABLE] = _user_namespace()


def _refused(error: OSError) -> CapabilityError:
    reasons = {
        errno.EPERM: "this machine does not allow user namespaces"
        " (see kernel.unprivileged_userns_clone, or the container's security profile)",
        errno.ENOSPC: "no more user namespaces are allowed (see user.max_user_namespaces)",
        errno.EINVAL: "this process has several threads already, or the kernel has no user namespaces",
        errno.ENOSYS: "this kernel has no user namespaces",
    }
    reason = reasons.get(error.errno or 0, f"user namespaces do not work ({error.strerror})")
    return CapabilityError(f"labs need root, or a user namespace; {reason}")


def _own_namespace_directory() -> None:
    """An empty ``/run/netns`` for this mount namespace only, with all else of ``/run`` as it was."""
    if NAMESPACE_DIRECTORY.is_dir():
        mount("tmpfs", str(NAMESPACE_DIRECTORY), "tmpfs", options="mode=755")
        return
    parent = NAMESPACE_DIRECTORY.parent
    original = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = [entry.name for entry in parent.iterdir()]
        mount("tmpfs", str(parent), "tmpfs", options="mode=755")
        for name in names:
            _show_again(name, original, parent)
    finally:
        os.close(original)
    NAMESPACE_DIRECTORY.mkdir()


def _show_again(name: str, directory: int, parent: Path) -> None:
    """Bind one entry of a covered directory to its old place."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    place = parent / name
    if stat.S_ISLNK(status.st_mode):
        place.symlink_to(os.readlink(name, dir_fd=directory))
        return
    if stat.S_ISDIR(status.st_mode):
        place.mkdir()
    else:
        place.touch()
    mount(f"/proc/self/fd/{directory}/{name}", str(place), flags=MS_BIND | MS_REC)


def start_holder(environment: Mapping[str, str]) -> int:
    """Start the process that keeps the namespaces of this process alive. Returns its pid."""
    process = subprocess.Popen(
        ["sleep", "infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env=os.environ | environment,
    )
    return process.pid


def enter_lab(lab: LabRecord) -> None:
    """Go where the lab's namespaces are visible: nowhere for root's labs, into its holder's otherwise.

    Raises LabError when the holder is gone, CapabilityError when it may not be entered.
    """
    if not lab.rootless or is_in_own_user_namespace():
        return
    holder = _find_holder(lab)
    os.environ[RUNTIME_VARIABLE] = str(lab.directory.parent)
    working_directory = Path.cwd()
    try:
        for name, kind in (("user", CLONE_NEWUSER), ("mnt", CLONE_NEWNS), ("net", CLONE_NEWNET)):
            descriptor = os.open(f"/proc/{holder.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(descriptor, kind)
            finally:
                os.close(descriptor)
        os.chdir(working_directory)
    except OSError as error:
        raise CapabilityError(f"cannot enter lab '{lab.name}': {error.strerror}") from error
    os.environ[USER_NAMESPACE_VARIABLE] = _user_namespace()


def _find_holder(lab: LabRecord) -> ProcessRecord:
    for process in lab.processes:
        if process.role == HOLDER_ROLE and process.is_alive():
            return process
    raise LabError(f"the process that held lab '{lab.name}' is gone; 'testbed clean' removes the rest")


def enter_node(namespace: NamespaceRecord) -> None:
    """Move this process into a node's namespace for good, with a ``/sys`` that shows its interfaces.

    Raises LabError when the namespace is gone, CapabilityError when it may not be entered.
    """
    descriptor = open_namespace(namespace)
    try:
        setns(descriptor, CLONE_NEWNET)
        unshare(CLONE_NEWNS)
        mount("", "/", flags=MS_REC | MS_SLAVE)
    except OSError as error:
        raise CapabilityError(
            f"cannot enter the namespace of {namespace.node}: {error.strerror}; it takes root, or the user"
            " who built the lab"
        ) from error
    finally:
        os.close(descriptor)
    # Without it /sys/class/net lists the interfaces of outside; the program can do without.
    with contextlib.suppress(OSError):
        mount("sysfs", "/sys", "sysfs")
