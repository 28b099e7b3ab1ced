"""Watching readers: which come and go, and what is put into them."""

from demail_hw.reader_watch.changes import ReaderEvent, WatchEvent
from demail_hw.reader_watch.complaints import Complain
from demail_hw.reader_watch.watch import ReaderWatch, watch_readers

__all__ = ["Complain", "ReaderEvent", "ReaderWatch", "WatchEvent", "watch_readers"]
