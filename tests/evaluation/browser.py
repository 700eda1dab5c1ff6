"""A headless Chromium that a test waits with for a text, over the DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import shutil
import socket
import subprocess
import time

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def chromium(directory):
    """Start one with a profile of its own; gives the address of its page."""
    profile = directory / "profile"
    process = subprocess.Popen(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1400,900",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = profile / "DevToolsActivePort"
        while not (told.is_file() and told.read_text().count("\n")):
            assert process.poll() is None, f"chromium ended with {process.returncode}"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{told.read_text().splitlines()[0]}"
    finally:
        process.terminate()
        process.wait()


def screenshot(browser, address, texts, file, patience=60):
    """Open a page, wait until it shows all texts, and keep a picture of it."""

    async def look():
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{browser}/json/list") as reply:
                pages = [page for page in await reply.json() if page["type"] == "page"]
            async with session.ws_connect(
                pages[0]["webSocketDebuggerUrl"], max_msg_size=0
            ) as socket:
                numbers = itertools.count(1)

                async def tell(method, **parameters):
                    number = next(numbers)
                    await socket.send_json({"id": number, "method": method, "params": parameters})
                    while (said := await socket.receive_json()).get("id") != number:
                        pass
                    return said["result"]

                await tell("Page.navigate", url=address)
                shown, end = "", time.monotonic() + patience
                while not all(text in shown for text in texts):
                    assert time.monotonic() < end, f"no {texts} in {shown!r}"
                    await asyncio.sleep(0.1)
                    found = await tell("Runtime.evaluate", expression="document.body.innerText")
                    shown = found["result"].get("value", "")
                picture = await tell("Page.captureScreenshot")
                file.write_bytes(base64.b64decode(picture["data"]))

    asyncio.run(look())
