"""New files of a folder: each is whole before it has a name, and takes the place of another in one step.

A draft has no name where the file system allows that, else a hidden one. It is locked while its run lives: what nobody
locks is what a dead run left, and the next one removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from graphopt.ir.copying import Sources
from graphopt.ir.wire import Bytes, Later, Stored

_HIDDEN = re.compile(r"\.graphopt-([0-9a-f]+)-([0-9a-f]+)-[0-9a-f]{16}\.tmp")
# What a file system says that has no files without a name; EISDIR is an old kernel's word.
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_FAILING = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


def behind_links(path: Path) -> Path:
    """The file that `path` stands for, which need not be there. Raises: OSError for a link that leads to itself."""
    if not path.is_symlink():
        return path
    with suppress(FileNotFoundError):
        path.stat()
    return path.resolve()


@contextmanager
def folder_at(path: Path) -> Iterator[int]:
    """A folder, held open, so that all happens in one even when it is renamed meanwhile."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


class Draft:
    """A file that is being written. `like`, the file it will replace, gives it owner and permissions."""

    def __init__(self, folder: int, like: os.stat_result | None = None) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._file = self._nameless()
        if self._file is None:
            self._file = self._hidden()
        if like is not None:
            # Some file systems have neither, and only root gives files away.
            with suppress(OSError):
                os.fchown(self._file, like.st_uid, like.st_gid)
            with suppress(OSError):
                os.fchmod(self._file, stat.S_IMODE(like.st_mode) & 0o777)

    @property
    def inode(self) -> int:
        """What the folder calls the file, whatever its name."""
        return os.fstat(self._opened).st_ino

    def write(self, chunks: Iterable[Bytes]) -> None:
        """Makes these bytes, and no others, what the file holds, on the disk."""
        with self.empty() as file, Sources() as sources:
            for chunk in chunks:
                if isinstance(chunk, Stored):
                    file.flush()
                    sources.copy(chunk, self._opened)
                else:
                    file.write((chunk.read() or b"") if isinstance(chunk, Later) else chunk)

    @contextmanager
    def empty(self) -> Iterator[IO[bytes]]:
        """The file with nothing in it, to be written to up to where it ends; then that is on the disk."""
        os.ftruncate(self._opened, 0)
        os.lseek(self._opened, 0, os.SEEK_SET)
        with open(self._opened, "wb", closefd=False) as file:
            yield file
        # The end may be a hole.
        os.ftruncate(self._opened, os.lseek(self._opened, 0, os.SEEK_CUR))
        os.fsync(self._opened)

    def announce(self, companion: int, witness: int = 0) -> None:
        """Gives it a hidden name that says which file, by inode, goes with it, should the run die; 0 for none.

        With a `witness` it goes only when that file has got a name which is not hidden.
        """
        name = hidden_name(companion, witness)
        before = self._names[-1:]
        self._names.append(name)
        if before:
            os.rename(before[0], name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:
            self._link(name)

    def publish(self, name: str) -> bool:
        """Gives it a name that no file has; False for one that has been taken meanwhile."""
        before = self._names[-1:]
        self._names.append(name)
        try:
            if before:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=self._folder))
                os.rename(before[0], name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            else:
                self._link(name)
        except FileExistsError:
            self._names.pop()
            return False
        return True

    def replace(self, name: str) -> None:
        """Puts it, which was announced, in the place of the file called `name`, or where there is none."""
        os.replace(self._names[-1], name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def is_at(self, name: str) -> bool:
        """Whether it is what `name` stands for."""
        return inode_of(name, self._folder) == self.inode

    def discard(self) -> None:
        """Takes all names from it."""
        for name in self._names:
            with suppress(OSError):
                if self.is_at(name):
                    os.unlink(name, dir_fd=self._folder)

    def close(self) -> None:
        """Ends the work on it: without a name it is gone."""
        os.close(self._opened)
        self._file = None

    @property
    def _opened(self) -> int:
        assert self._file is not None
        return self._file

    def _link(self, name: str) -> None:
        # With a folder given, Python follows the link that stands for the open file.
        os.link(f"/proc/self/fd/{self._file}", name, dst_dir_fd=self._folder, follow_symlinks=True)

    def _nameless(self) -> int | None:
        flag = getattr(os, "O_TMPFILE", 0)
        if not flag or not os.path.isdir("/proc/self/fd"):
            return None
        try:
            file = os.open(".", flag | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=self._folder)
        except OSError as error:
            if error.errno in _NO_NAMELESS:
                return None
            raise
        _lock(file)
        return file

    def _hidden(self) -> int:
        while True:
            name = hidden_name()
            file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=self._folder)
            # Between the two another run may have taken it for one that a dead run left.
            if _lock(file) is not False and inode_of(name, self._folder) == os.fstat(file).st_ino:
                self._names.append(name)
                return file
            os.close(file)


def hidden_name(companion: int = 0, witness: int = 0) -> str:
    """A name for a file that is not finished, with the inodes of others, as `Draft.announce` says."""
    return f".graphopt-{companion:x}-{witness:x}-{secrets.token_hex(8)}.tmp"


def status(name: str, folder: int) -> os.stat_result | None:
    """What a name stands for; None where there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def inode_of(name: str, folder: int) -> int | None:
    """The inode that a name stands for; None where there is none."""
    found = status(name, folder)
    return found.st_ino if found is not None else None


def sync(folder: int) -> None:
    """Brings the names of a folder to the disk, where it can do that. Raises: OSError for a disk that fails."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno in _FAILING:
            raise


def left_behind(folder: int) -> Iterator[tuple[str, list[str]]]:
    """(hidden name, names of what goes with it) of each file that a dead run left; locked until the next is asked."""
    listed = sorted(os.listdir(folder))
    hidden = [(name, match) for name in listed if (match := _HIDDEN.fullmatch(name))]
    shown = {name: inode_of(name, folder) for name in listed if not _HIDDEN.fullmatch(name)} if hidden else {}
    for name, match in hidden:
        with suppress(OSError):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                there = os.fstat(file)
                if stat.S_ISREG(there.st_mode) and there.st_uid == os.geteuid() and _lock(file):
                    companion, witness = (int(match[group], 16) for group in (1, 2))
                    goes = not witness or witness in shown.values()
                    yield name, [other for other, inode in shown.items() if goes and inode == companion]
            finally:
                os.close(file)


def _lock(file: int) -> bool | None:
    """Whether the lock of a file is ours now, until it is closed; None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
