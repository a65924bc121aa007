"""Files that are no models, such as reports: each is all there, or what was there before."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from graphopt.ir.publish import Draft, behind_links, folder_at, status
from graphopt.ir.side import remove_left_behind


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that, when all went well, takes the place of that at `path` in one step. Raises: OSError."""
    target = behind_links(path)
    with folder_at(target.parent) as folder:
        remove_left_behind(folder, target.parent)
        old = status(target.name, folder)
        if old is not None and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with closing(Draft(folder, old)) as draft:
            try:
                with draft.empty() as file:
                    yield file
                draft.announce(0)
                draft.replace(target.name)
            finally:
                if not draft.is_at(target.name):
                    draft.discard()
