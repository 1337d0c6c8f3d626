"""Files that a verb writes its result to because an option names them.

Its one rule: a regular file is there whole or as it was, and nothing else is ever replaced. So a
file is written beside its place and renamed, a symbolic link stays and its target is written, and
a FIFO or a terminal is opened and written as it is.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from attrs import frozen

from opus_socket.errors import ConfigurationError, OverlayError

_STANDARD = (1, 2)
_WRITABLE_KINDS: tuple[Callable[[int], bool], ...] = (stat.S_ISREG, stat.S_ISFIFO, stat.S_ISCHR)


@frozen
class OutputFile:
    """Where an option says that something is to be written.

    Attributes:
        option: how the option is written, for errors.
        path: as it was given.
    """

    option: str
    path: str

    def check(self) -> None:
        """Refuse at once what could not be written at the end.

        Raises:
            ConfigurationError: a folder or a socket, in a folder that is not there, or forbidden.
        """
        try:
            problem = self._problem()
        except (OSError, ValueError) as error:
            problem = _reason(error)
        if problem:
            raise ConfigurationError(
                f"{self.option} = {self.path!r} cannot be written: {problem}; name a file in a "
                "folder that exists and that you may write to"
            )

    def write(self, text: str) -> None:
        """Write it, in UTF-8. A file that exists keeps its permissions.

        Raises:
            OverlayError: the system refuses; what was written of a regular file is taken away.
        """
        data = text.encode()
        try:
            found = _status(self.path)
            if found is not None and (descriptor := _standard_stream(found)) is not None:
                # A second way into the same file would write over what the first one wrote.
                sys.stdout.flush()
                write_all(descriptor, data)
            elif found is not None and not stat.S_ISREG(found.st_mode):
                with _opened(self.path, os.O_WRONLY | os.O_NOCTTY) as descriptor:
                    write_all(descriptor, data)
            else:
                _replace(os.path.realpath(self.path), found, data)
        except OSError as error:
            raise OverlayError(
                f"{self.option} = {self.path!r} cannot be written: {_reason(error)}"
            ) from None

    def _problem(self) -> str | None:
        """Why it could not be written, as far as can be known now."""
        found = _status(self.path)
        if found is None and os.path.basename(self.path) in ("", ".", ".."):
            return "that is no file's name"
        if found is not None:
            if not any(is_kind(found.st_mode) for is_kind in _WRITABLE_KINDS):
                if stat.S_ISDIR(found.st_mode):
                    return "it is a folder"
                return "it is no file that can be written in place"
            if _standard_stream(found) is not None:
                return None
            if not os.access(self.path, os.W_OK):
                return os.strerror(errno.EACCES)
            if not stat.S_ISREG(found.st_mode):
                return None
        folder = os.path.dirname(os.path.realpath(self.path))
        if not os.path.isdir(folder):
            return f"there is no folder {folder!r}"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"no file can be made in {folder!r}"
        return None


def _status(path: str) -> os.stat_result | None:
    """Of the file, or of the target of a link; None where there is none yet."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _standard_stream(found: os.stat_result) -> int | None:
    """The descriptor of the standard stream that goes to this file, whatever its name."""
    for descriptor in _STANDARD:
        with suppress(OSError):  # it is closed
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def _replace(path: str, found: os.stat_result | None, data: bytes) -> None:
    """Put a new file in the place of one that was found, or of none."""
    beside = os.path.join(os.path.dirname(path), f".opus-socket-{secrets.token_hex(8)}")
    # Before it has its permissions nobody else is to read what they may forbid to read.
    mode = 0o666 if found is None else 0o600
    try:
        with _opened(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode) as descriptor:
            if found is not None:
                if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    with suppress(PermissionError):  # giving files away is not for everybody
                        os.fchown(descriptor, found.st_uid, found.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
            write_all(descriptor, data)
            os.fsync(descriptor)
        os.replace(beside, path)
    except BaseException:
        # Interrupted, too, it leaves nothing behind.
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise


@contextmanager
def _opened(path: str, flags: int, mode: int = 0o666) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write to a descriptor until nothing is left, whatever it takes at a time.

    Raises:
        OSError: the system refuses.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
