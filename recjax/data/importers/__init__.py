"""Raw logs in their publishers' formats, to events and a catalog; one file per format."""

from recjax.data.importers.detect import FORMATS, read
from recjax.data.importers.logs import RawLogs

__all__ = ["FORMATS", "RawLogs", "read"]
