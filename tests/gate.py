"""A way to a server that can be shut: TCP, byte by byte as it comes, with a count of both directions."""

import socket
import threading
from contextlib import suppress

MIB = 1024**2


class Gate:
    """Stands between the API and the store, and can be shut."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.through = 0  # bytes towards the store
        self.back = 0  # and from it
        self.shut_after: int | None = None
        self.opens_again = False
        self.open: list[socket.socket] = []
        self.copying: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self.listener.accept()
            except OSError:
                return
            if self.shut_after == 0:
                inner.close()
                continue
            outer = socket.create_connection(("127.0.0.1", self.target))
            self.open += [inner, outer]
            for words in ((inner, outer, True), (outer, inner, False)):
                copying = threading.Thread(target=self._copy, args=words, daemon=True)
                copying.start()
                self.copying.append(copying)

    def _copy(self, source: socket.socket, sink: socket.socket, towards: bool) -> None:
        try:
            while data := source.recv(MIB):
                self.through += len(data) if towards else 0
                self.back += 0 if towards else len(data)
                if self.shut_after is not None and self.through >= self.shut_after:
                    self.shut()
                    return
                sink.sendall(data)
        except OSError:
            pass
        for side in (source, sink):
            self._end(side)

    @staticmethod
    def _end(side: socket.socket) -> None:
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)  # close() alone leaves the thread that reads from it waiting
        side.close()

    def shut(self) -> None:
        self.shut_after = None if self.opens_again else 0
        for side in self.open:
            self._end(side)
        self.open.clear()

    def reopen(self) -> None:
        self.shut_after, self.opens_again, self.through, self.back = None, False, 0, 0
