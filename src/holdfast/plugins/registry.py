"""The plugins of this machine: found and activated when first asked for, left alone for a while when they are silent.

A plugin that does not listen, breaks off or does not answer a plain question is not asked again at once: whoever asks
meanwhile is told so without waiting, and after the pause one call tries for all. It is looked for anew then, as another
process may serve it by now. Work that takes too long says nothing about the plugin, only about one volume.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from holdfast import log
from holdfast.errors import NotFound, System
from holdfast.plugins.discovery import Discovery, Endpoint
from holdfast.plugins.transport import Transport, Unreachable

logger = log.get(__name__)

_LIMIT_BYTES = 1 << 20
_RETRIES_S = (0.1, 0.2, 0.4)
"""Pauses between attempts to reach a plugin that nobody serves right now: it may just be starting anew."""
_PAUSE_S = 1.0
_PAUSE_MAX_S = 15.0
_AT_ONCE = 32
"""How many calls a plugin may leave unanswered."""


class Refused(System):
    """The plugin answered that it does not, or with something that makes no sense."""


class OtherKind(Refused):
    """It is a plugin, but not of the kind that was asked for."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds: `work` for what makes and mounts, `question` for everything else. Source: moby, volume/drivers."""

    work: float = 120.0
    question: float = 60.0


class Document:
    """A JSON object of a plugin's answer. Keys are found whatever their case, as Go finds them; null is missing."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = {key.lower(): value for key, value in content.items()}

    def text(self, key: str) -> str:
        """Give a text, empty if missing. Raises Refused for anything else."""
        value = self._content.get(key.lower())
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Refused(f"the plugin's answer has no text at {key}")
        return value

    def object(self, key: str) -> Document | None:
        """Give an object, None if missing. Raises Refused for anything else."""
        value = self.plain(key)
        return None if value is None else Document(value)

    def plain(self, key: str) -> dict[str, Any] | None:
        """Give an object as it is, None if missing. Raises Refused for anything else."""
        value = self._content.get(key.lower())
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Refused(f"the plugin's answer has no object at {key}")
        return value

    def array(self, key: str) -> list[Any]:
        """Give an array, empty if missing. Raises Refused for anything else."""
        value = self._content.get(key.lower())
        if value is None:
            return []
        if not isinstance(value, list):
            raise Refused(f"the plugin's answer has no array at {key}")
        return value


class Plugin:
    """One plugin at one place. Safe from any thread."""

    def __init__(self, endpoint: Endpoint, transport: Transport) -> None:
        self.endpoint = endpoint
        self.implements: frozenset[str] | None = None
        """What it said when it was activated; None as long as it has not been."""
        self._transport = transport
        self._guard = threading.Lock()
        self._failures = 0
        self._silent_until = 0.0
        self._why = ""
        self._waiting = 0
        self._is_tried = False

    def call(
        self, method: str, request: object, timeout_s: float, *, question: bool, limit_bytes: int = _LIMIT_BYTES
    ) -> Document:
        """Call a method and give its answer. A `question` changes nothing and may be asked again.

        Raises Unreachable, Refused with the plugin's own words, as Docker gives them; Unavailable when the engine ends.
        """
        is_trial = self._begin()
        failure: Unreachable | None = None
        says_nothing = False
        try:
            body = b"" if request is None else msgspec.json.encode(request) + b"\n"
            status, content = self._send(method, body, timeout_s, question=question, limit_bytes=limit_bytes)
        except Unreachable as error:
            says_nothing = error.late and not question
            failure = error
            raise
        except System as error:
            raise Refused(f"{method}: {error}") from None
        finally:
            self._end(failure, is_trial=is_trial, says_nothing=says_nothing)
        return _decode(method, status, content)

    def _send(
        self, method: str, body: bytes, timeout_s: float, *, question: bool, limit_bytes: int
    ) -> tuple[int, bytes]:
        for pause_s in (*_RETRIES_S, None):
            try:
                return self._transport.post(self.endpoint, method, body, timeout_s, limit_bytes)
            except Unreachable as error:
                if pause_s is None or error.late or not (error.unsent or question) or self._failures:
                    raise
            time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _begin(self) -> bool:
        """Count a call; gives whether it is the one that tries again. Raises Unreachable if it is not to be made."""
        with self._guard:
            now = time.monotonic()
            if self._failures and (now < self._silent_until or self._is_tried):
                again_s = max(1, round(self._silent_until - now))
                raise Unreachable(
                    f'plugin "{self.endpoint.name}" does not answer: {self._why}',
                    hint=f"it is asked again in {again_s} s; look after the plugin at {_place(self.endpoint)}",
                )
            if self._waiting >= _AT_ONCE:
                raise Unreachable(f'plugin "{self.endpoint.name}" does not answer: {self._waiting} calls wait for it')
            self._waiting += 1
            is_trial = self._failures > 0
            self._is_tried = self._is_tried or is_trial
            return is_trial

    def _end(self, failure: Unreachable | None, *, is_trial: bool, says_nothing: bool) -> None:
        with self._guard:
            self._waiting -= 1
            if is_trial:
                self._is_tried = False
            if says_nothing:
                return
            if failure is None:
                self._failures = 0
                return
            self._silent_until = time.monotonic() + min(_PAUSE_S * 2**self._failures, _PAUSE_MAX_S)
            self._failures = min(self._failures + 1, 8)
            self._why = str(failure)
            self.implements = None
        logger.warning("plugin does not answer", extra={"plugin": self.endpoint.name, "error": failure})


class Plugins:
    """All plugins, by name. Safe from any thread."""

    def __init__(self, discovery: Discovery | None = None, timeouts: Timeouts | None = None) -> None:
        self.timeouts = timeouts or Timeouts()
        self._discovery = discovery or Discovery()
        self._transport = Transport()
        self._known: dict[str, Plugin] = {}
        self._guard = threading.Lock()

    def get(self, name: str, implementing: str) -> Plugin:
        """Give an active plugin that implements `implementing`.

        Raises NotFound if there is none of that name, OtherKind, Refused, Unreachable, System; in Docker's words.
        """
        with self._guard:
            plugin = self._known.get(name)
        implements = plugin.implements if plugin else None
        if plugin is None or implements is None:
            plugin = self._find(name)
            answer = plugin.call("Plugin.Activate", None, self.timeouts.question, question=True)
            implements = frozenset(str(kind) for kind in answer.array("Implements"))
            plugin.implements = implements
            logger.info("plugin is active", extra={"plugin": name, "socket": _place(plugin.endpoint)})
        if implementing not in implements:
            plugin.implements = None  # another program may serve it next time
            raise OtherKind(
                f'legacy plugin: Plugin does not implement the requested driver: plugin="{name}", '
                f'requested implementation="{implementing}"'
            )
        return plugin

    def active(self, implementing: str) -> frozenset[str]:
        """Give the names of the active plugins that implement `implementing`, from memory."""
        with self._guard:
            return frozenset(
                name for name, plugin in self._known.items() if implementing in (plugin.implements or ())
            )

    def names(self) -> frozenset[str]:
        """Give the names of all plugins that can be found now; none of them is asked."""
        return self._discovery.names()

    def close(self) -> None:
        """Fail every call, now and in future: the engine stops."""
        self._transport.close()

    def _find(self, name: str) -> Plugin:
        endpoint = self._discovery.find(name)
        with self._guard:
            known = self._known.get(name)
            if endpoint is None:
                self._known.pop(name, None)
                raise NotFound(f'plugin "{name}" not found')
            if known is None or known.endpoint != endpoint:
                known = self._known[name] = Plugin(endpoint, self._transport)
            return known


def _decode(method: str, status: int, content: bytes) -> Document:
    try:
        decoded = msgspec.json.decode(content) if content.strip() else {}
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        if status == 200:
            raise Refused(f"{method}: the answer is no JSON: {error}") from None
        decoded = {}
    if not isinstance(decoded, dict):
        raise Refused(f"{method}: the answer is no JSON object")
    document = Document(decoded)
    if status != 200:
        said = document.text("Err") or content[:1024].decode(errors="replace").strip() or f"status {status}"
        raise Refused(f"{method}: {said}")
    if said := document.text("Err"):
        raise Refused(said)
    return document


def _place(endpoint: Endpoint) -> str:
    return endpoint.path or f"{endpoint.host}:{endpoint.port}"
