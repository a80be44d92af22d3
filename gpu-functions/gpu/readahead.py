"""Brings a model's files into memory while other things are loaded: a cold start waits for its disk, often one that is far away."""

import os
import threading
from pathlib import Path

READERS = 8
PIECE = 16 << 20


def read_ahead(directory: Path) -> list[threading.Thread]:
    """
    Reads all weights of a directory in parallel, into the system's cache alone: whoever reads them after that, or meanwhile, does not wait
    for the disk. Returns at once; a file that cannot be read is left to who needs it.
    """
    pieces = [
        (path, start) for path in sorted(directory.glob("*.safetensors")) for start in range(0, path.stat().st_size, PIECE)
    ]  # fmt: skip
    lock = threading.Lock()
    ahead = iter(pieces)

    def read() -> None:
        buffer = bytearray(PIECE)
        while True:
            with lock:
                piece = next(ahead, None)
            if piece is None:
                return
            path, start = piece
            try:
                with path.open("rb", buffering=0) as file:
                    os.preadv(file.fileno(), [buffer], start)
            except OSError:
                return

    threads = [threading.Thread(target=read, daemon=True) for _ in range(min(READERS, len(pieces)))]
    for thread in threads:
        thread.start()
    return threads
