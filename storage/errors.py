"""What storage refuses, as a small tree of domain errors."""


class InputError(ValueError):
    """A mosaic, a region or an output directory that the job cannot work with.

    The message names the file and the values that clash, and what to do about it. It can be printed, whatever the
    names of files are made of.
    """

    def __init__(self, message: str) -> None:
        """Bytes of a name that are no text stand as escapes."""
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


class EmptyRasterError(InputError):
    """A raster without a valid pixel: of many tiles of a mosaic one may be, of one file it is refused."""


class ShortReadError(OSError):
    """A raster delivered fewer pixels than its header promises: truncated, corrupt or unreachable."""


class ReplacedError(ShortReadError):
    """A raster is not the one any more that was planned with; the message has what tells them apart."""


class IntegrityError(RuntimeError):
    """Bytes at rest are not the bytes that were written: a checksum or a digest does not match."""


class ObjectStoreError(OSError):
    """An object store denied a request, or did not answer in time."""


class StaleWriteError(ObjectStoreError):
    """A write that depended on what was there, and something else was there."""


class TakenOverError(RuntimeError):
    """Another process works in this run directory now; this one has written nothing since."""
