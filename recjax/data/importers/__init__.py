"""Raw logs in their publishers' formats, to events and a catalog; one file per format.

What happens to bad input, everywhere: rows without a user id are anonymous events, left out and counted; other rows
that cannot be used (no item, no or an unreadable time, an unreadable rating, too many fields) are left out and counted
while they are at most `max_refused` of all, and an error above; the first five are quoted with their lines. A missing
rating leaves an event unrated. A file that is not UTF-8 is an error that names the line, unless its format is Latin-1.
Of duplicate ids in a catalog the first stays, and items without a catalog row have no text; both are counted, and
where most items have no row, an id of each side is named.
All of it is in `RawLogs.notes`; how times are read is said in `timestamps`.
"""

from recjax.data.importers.detect import FORMATS, open_table, read
from recjax.data.importers.download import SOURCES, download
from recjax.data.importers.logs import RawLogs, Reading
from recjax.data.importers.timestamps import time_columns

__all__ = ["FORMATS", "SOURCES", "RawLogs", "Reading", "download", "open_table", "read", "time_columns"]
