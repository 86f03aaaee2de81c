"""A handler of the standard `logging` that writes records to a feed."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any, Dict, Optional

from ._jlog import Writer

# The attributes of every record; all others were given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FeedHandler(logging.Handler):
    """Writes each record as a line of JSON: time, level, logger, message, the values of `extra`, and the exception.

    Records from `sync_level` on (ERROR by default; None for none) are durable when the call that logs them returns.
    """

    def __init__(
        self, writer: Writer, level: int = logging.NOTSET, sync_level: Optional[int] = logging.ERROR
    ) -> None:
        super().__init__(level)
        self._writer = writer
        self._sync_level = sync_level
        self._plain = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.append(self.encode(record))
            if self._sync_level is not None and record.levelno >= self._sync_level:
                self._writer.sync()
        except Exception:
            self.handleError(record)

    def encode(self, record: logging.LogRecord) -> bytes:
        """The line for a record."""
        if self.formatter is not None:
            return self.format(record).encode()
        line: Dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD:
                line.setdefault(key, value)
        if record.exc_info:
            line["exception"] = self._plain.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")

    def flush(self) -> None:
        try:
            self._writer.flush()
        except Exception:
            # logging flushes at exit, when the writer may be closed and has flushed everything already.
            pass
