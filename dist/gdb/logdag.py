"""The memory rings of a logdag program, from its core or from the running process.

    $ gdb -batch -x logdag.py -ex logdag-rings PROGRAM CORE
    $ gdb -batch -x logdag.py -ex 'logdag-rings internal 20' -p PID

Neither symbols nor debug information is needed: rings are found by the mark they begin with (struct
Shown in logdag/src/sink/memory.rs), in programs of 64 bits. A line that a thread was just writing may
be missing. Control characters are printed as escapes.
"""

import re
import struct
from datetime import datetime, timezone

import gdb

MARK = b"logdag\xff\xa7ring\x5e\xd1\x00\x01"
# After the mark: its own address; address and length of the name, of the bytes, of the slots; the
# first slot, the number of lines, the number of the last line.
FIELDS = 10
# A slot: where the line begins in the bytes, its length, its time in microseconds.
SLOT = 24


def mapped():
    """The writable memory: begin and end of each piece."""
    pieces = []
    # Of a core: "0x00007f0000000000 - 0x00007f0000021000 is load5".
    for line in gdb.execute("info files", to_string=True).splitlines():
        found = re.match(r"\s*0x([0-9a-f]+) - 0x([0-9a-f]+) is load", line)
        if found:
            pieces.append(tuple(int(number, 16) for number in found.groups()))
    if pieces:
        return pieces
    # Of a process: begin, end, size, offset, since gdb 12 permissions, and a file.
    for line in gdb.execute("info proc mappings", to_string=True).splitlines():
        found = re.match(r"\s*0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x[0-9a-f]+\s+0x[0-9a-f]+\s+(\S*)", line)
        if found and (not re.fullmatch("[-r][-w][-x][-ps]", found[3]) or "w" in found[3]):
            pieces.append((int(found[1], 16), int(found[2], 16)))
    return pieces


def read(address, length):
    return bytes(gdb.selected_inferior().read_memory(address, length)) if length else b""


def printable(line):
    text = line.decode("utf-8", "backslashreplace")
    text = text[:-1] if text.endswith("\n") else text
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda control: f"\\x{ord(control[0]):02x}", text)


class Ring:
    def __init__(self, fields):
        _, name, name_len, self.bytes, self.bytes_len, self.slots, self.slots_len, self.first, count, last = fields
        self.name = read(name, name_len).decode("utf-8", "replace")
        self.count, self.last = count, last
        if count > self.slots_len or self.first >= max(self.slots_len, 1):
            raise ValueError("its fields do not fit together")

    def lines(self, order):
        """The lines, oldest first: the number, the time in microseconds, and the text of each."""
        everything = read(self.bytes, self.bytes_len)
        slots = read(self.slots, self.slots_len * SLOT)
        for n in range(self.count):
            at = (self.first + n) % self.slots_len * SLOT
            start, length, micros = struct.unpack_from(order + "QQQ", slots, at)
            if start >= max(self.bytes_len, 1) or length > self.bytes_len:
                raise ValueError("a line lies outside of it")
            line = everything[start : start + length]
            line += everything[: length - len(line)]
            yield self.last - self.count + 1 + n, micros, printable(line)


def rings(order):
    for begin, end in mapped():
        at = begin
        while at < end:
            try:
                at = gdb.selected_inferior().search_memory(at, end - at, MARK)
            except gdb.error:
                break
            if at is None:
                break
            try:
                fields = struct.unpack(order + "Q" * FIELDS, read(at + len(MARK), 8 * FIELDS))
                # A copy that was left behind has another address.
                if fields[0] == at:
                    yield at, Ring(fields)
            except (gdb.error, ValueError) as error:
                print(f"the ring at {at:#x} cannot be read: {error}")
            at += len(MARK)


class Rings(gdb.Command):
    """Print the lines of logdag's memory rings, oldest first.

    logdag-rings [-t] [STREAM [LINES]]

    STREAM prints only the ring of that stream, and LINES limits it to that many of the last lines.
    -t prints the number and the time (UTC) of each line before it. A ring that never had a line is
    not found."""

    def __init__(self):
        super().__init__("logdag-rings", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        arguments = gdb.string_to_argv(argument)
        times = "-t" in arguments
        arguments = [argument for argument in arguments if argument != "-t"]
        if len(arguments) > 2 or any(argument.startswith("-") for argument in arguments):
            raise gdb.GdbError("expected: logdag-rings [-t] [STREAM [LINES]]")
        wanted = arguments[0] if arguments else None
        last = None
        if len(arguments) == 2:
            if not arguments[1].isdecimal():
                raise gdb.GdbError(f"LINES is {arguments[1]!r}: expected a number")
            last = int(arguments[1])
        if gdb.selected_inferior().pid == 0 and "load" not in gdb.execute("info files", to_string=True):
            raise gdb.GdbError("there is neither a core nor a process to read: begin with gdb PROGRAM CORE, or gdb -p PID")
        order = ">" if "big endian" in gdb.execute("show endian", to_string=True) else "<"

        found = 0
        for at, ring in rings(order):
            if wanted is not None and ring.name != wanted:
                continue
            found += 1
            plural = "" if ring.count == 1 else "s"
            print(f"ring {ring.name or f'without a name at {at:#x}'}: {ring.count} line{plural}")
            try:
                lines = list(ring.lines(order))
            except (gdb.error, ValueError) as error:
                print(f"the ring cannot be read: {error}")
                continue
            for number, micros, text in lines if last is None else lines[max(len(lines) - last, 0) :]:
                if times:
                    seconds, fraction = divmod(micros, 1000000)
                    time = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
                    text = f"{number} {time}.{fraction:06} {text}"
                print(text)
        if not found:
            of = f" of a stream {wanted}" if wanted is not None else ""
            raise gdb.GdbError(f"there is no ring{of} that had a line")


Rings()
