"""Queues between processes."""

from queue import Empty, Full

from procession._missing import missing_class
from procession._procession import Queue

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]

JoinableQueue = missing_class("JoinableQueue")
SimpleQueue = missing_class("SimpleQueue")
