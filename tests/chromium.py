"""A headless Chromium that tests can talk to: DevTools messages over a pipe, nothing but the standard library."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Handing descriptors over as below is POSIX.
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None) if os.name == "posix" else None
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio")


class Chromium:
    """One tab. Use as a context; `folder` takes its profile."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1920, 950)) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # DevTools listens at descriptor 3 and answers at 4.
        places = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        flags = (*FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}")
        self._process = subprocess.Popen(
            ["bash", "-c", places, str(PROGRAM), *flags, "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._numbers, self._rest = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.tab("Emulation.setDeviceMetricsOverride", **metrics)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tab(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)

    def send(self, method: str, session: str | None = None, timeout: float = 20, **params: Any) -> dict[str, Any]:
        """One command and its answer; what comes in between is kept in `events`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            answer = self._next(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)
        raise TimeoutError(method)

    def tab(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to the tab."""
        return self.send(method, self._session, **params)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.tab("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, timeout: float = 10) -> Any:
        """The value of an expression as soon as it is true."""
        deadline = time.monotonic() + timeout
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        """Go there, until it is read."""
        self.tab("Page.navigate", url=address)
        self.until(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def screenshot(self, path: Path) -> Path:
        """The tab as PNG."""
        path.write_bytes(base64.b64decode(self.tab("Page.captureScreenshot", format="png")["data"]))
        return path

    def complaints(self) -> list[str]:
        """Errors of scripts, of the content policy, of the network, that came so far."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
        return found

    def requested(self) -> list[str]:
        """Addresses that the tab asked for so far."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))
