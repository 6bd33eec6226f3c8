"""Signals that ask the local stack to end."""

import signal
from typing import Self


class Interrupts:
    """Turns the first signal that asks for an end into `KeyboardInterrupt` and ignores later ones.

    Those signals are SIGINT, SIGTERM and SIGHUP. The previous handlers are restored on exit.
    """

    def __init__(self) -> None:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.getsignal(number) for number in numbers}
        self._received = False

    def __enter__(self) -> Self:
        for number in self._previous:
            signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def ignore(self) -> None:
        """Ignore the first signal, too, while the servers are being stopped."""
        for number in self._previous:
            signal.signal(number, signal.SIG_IGN)

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a signal was received.

        The code that was running may have swallowed the first one: libraries that try to import
        optional packages catch every exception.
        """
        if self._received:
            raise KeyboardInterrupt

    def _interrupt(self, *_: object) -> None:
        self._received = True
        self.ignore()
        raise KeyboardInterrupt
