"""How programs save "f": the system calls that were recorded of them (strace), as functions."""

from __future__ import annotations

from collections.abc import Callable

from tests.node.filesystem.machines import Machine

Dance = Callable[[Machine, bytes], None]


def vim(machine: Machine, data: bytes) -> None:
    """vim 9, backupcopy=no: it probes the folder, moves the file away, writes it, removes the old."""
    handle = machine.create("4913", 0o644)
    machine.close(handle)
    machine.unlink("4913")
    machine.rename("f", "f~")
    handle = machine.create("f", 0o644)
    machine.write(handle, data)
    machine.fsync(handle)
    machine.close(handle)
    machine.chmod("f", 0o644)
    machine.unlink("f~")


def vim_in_place(machine: Machine, data: bytes) -> None:
    """vim 9, backupcopy=yes."""
    machine.put("f~", machine.read("f"))
    machine.overwrite("f", data)
    machine.unlink("f~")


def emacs(machine: Machine, data: bytes) -> None:
    """emacs 28: a lock beside it, the first save of a session moves the old file to a backup."""
    machine.symlink("someone@host.1234:1700000000", ".#f")
    machine.rename("f", "f~")
    handle = machine.create("f", 0o644)
    machine.write(handle, data)
    machine.fsync(handle)
    machine.close(handle)
    machine.unlink(".#f")


def nano(machine: Machine, data: bytes) -> None:
    """nano 7 writes in place."""
    machine.overwrite("f", data)


def sed(machine: Machine, data: bytes) -> None:
    """GNU sed 4.9 -i."""
    handle = machine.create("sedA1b2C3", 0o600)
    machine.chmod("sedA1b2C3", 0o644)
    machine.write(handle, data)
    machine.close(handle)
    machine.rename("sedA1b2C3", "f")


def rsync(machine: Machine, data: bytes) -> None:
    """rsync 3.2: it sets the time of the source before it renames."""
    handle = machine.create(".f.Xy12Zw", 0o600)
    machine.write(handle, data)
    machine.close(handle)
    machine.utime(".f.Xy12Zw", 1_600_000_000_000_000_000)
    machine.chmod(".f.Xy12Zw", 0o644)
    machine.rename(".f.Xy12Zw", "f")


def rsync_with_backup(machine: Machine, data: bytes) -> None:
    """rsync 3.2 --backup."""
    handle = machine.create(".f.Xy12Zw", 0o600)
    machine.write(handle, data)
    machine.close(handle)
    machine.rename("f", "f~")
    machine.rename(".f.Xy12Zw", "f")


def gedit(machine: Machine, data: bytes) -> None:
    """GLib's g_file_replace without a backup: write .goutputstream, fsync, rename."""
    handle = machine.create(".goutputstream-K3M8Z1", 0o644)
    machine.write(handle, data)
    machine.fsync(handle)
    machine.rename(".goutputstream-K3M8Z1", "f")
    machine.close(handle)


def gedit_with_backup(machine: Machine, data: bytes) -> None:
    """GLib's g_file_replace with a backup: the backup is a hard link at first."""
    handle = machine.create(".goutputstream-K3M8Z1", 0o644)
    machine.write(handle, data)
    machine.fsync(handle)
    if machine.exists("f~"):
        machine.unlink("f~")
    machine.link("f", "f~")
    machine.rename(".goutputstream-K3M8Z1", "f")
    machine.close(handle)


def libreoffice(machine: Machine, data: bytes) -> None:
    """LibreOffice 7: a lock, the new file beside it, the old one away, the new one in, the old removed."""
    machine.put(".~lock.f#", b",someone,host,;")
    handle = machine.create("lu9876abcd.tmp", 0o600)
    machine.write(handle, data)
    machine.fsync(handle)
    machine.close(handle)
    machine.rename("f", "lu9876abce.tmp")
    machine.rename("lu9876abcd.tmp", "f")
    machine.unlink("lu9876abce.tmp")
    machine.unlink(".~lock.f#")


def git_checkout(machine: Machine, data: bytes) -> None:
    """git 2.39 checkout: the file is removed and written anew; the index is replaced."""
    machine.unlink("f")
    machine.put("f", data)


def python_atomic(machine: Machine, data: bytes) -> None:
    """tempfile.NamedTemporaryFile(dir=...), still open when os.replace comes."""
    handle = machine.create("tmpq8v_x2kd", 0o600)
    machine.write(handle, data)
    machine.rename("tmpq8v_x2kd", "f")
    machine.close(handle)


def exchange_and_remove(machine: Machine, data: bytes) -> None:
    """renameat2(RENAME_EXCHANGE), as editors do that never want the name to be gone."""
    machine.put("f.new", data)
    machine.exchange("f.new", "f")
    machine.unlink("f.new")


def link_over(machine: Machine, data: bytes) -> None:
    """Remove, then rename in."""
    machine.put("f.new", data)
    machine.unlink("f")
    machine.rename("f.new", "f")


def from_another_folder(machine: Machine, data: bytes) -> None:
    machine.mkdir("d")
    machine.put("d/g", data)
    machine.rename("d/g", "f")
    machine.rmdir("d")


DANCES: list[Dance] = [
    vim,
    vim_in_place,
    emacs,
    nano,
    sed,
    rsync,
    rsync_with_backup,
    gedit,
    gedit_with_backup,
    libreoffice,
    git_checkout,
    python_atomic,
    exchange_and_remove,
    link_over,
    from_another_folder,
]
IN_PLACE = [nano, vim_in_place]
KEEP_BACKUP = [emacs, rsync_with_backup, gedit_with_backup]
