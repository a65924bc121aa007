"""Opening files that a model names: never through a link, never something that blocks."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_FILE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# With O_PATH a folder need not be readable to be gone through, as paths do.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0) | _NO_LINK


def open_regular(path: str | os.PathLike[str], *, links: bool = False) -> tuple[int, os.stat_result]:
    """(descriptor, status) of a regular file, to be read; a pipe or a device is not even opened.

    Without `links`, no part of `path` may be a symbolic link: each is opened from the one before it, so that nothing
    can be put in its place meanwhile. Raises: OSError, with ELOOP for a link, EINVAL for what is
    neither a file nor a folder.
    """
    if links or os.open not in os.supports_dir_fd:
        return _open(os.fspath(path), None, 0)
    parts = Path(path).absolute().parts
    folder = os.open(parts[0], _FOLDER)
    try:
        for part in parts[1:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _open(parts[-1], folder, _NO_LINK)
    except NotADirectoryError as error:
        # What O_DIRECTORY and O_NOFOLLOW together say of a link.
        if stat.S_ISLNK(os.lstat(part, dir_fd=folder).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from error
        raise
    finally:
        os.close(folder)


def _open(name: str, folder: int | None, flags: int) -> tuple[int, os.stat_result]:
    # Opening a device may already do something.
    _check(os.stat(name, dir_fd=folder, follow_symlinks=not flags), name)
    file = os.open(name, _FILE | flags, dir_fd=folder)
    try:
        status = os.fstat(file)
        _check(status, name)
    except OSError:
        os.close(file)
        raise
    return file, status


def _check(status: os.stat_result, name: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)
