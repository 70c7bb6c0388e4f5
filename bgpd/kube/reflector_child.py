"""The reflector beside an agent whose node was elected: a process of its own, started and ended by the agent.

The reflector owns port 179 and has its own router ID; the agent only connects (to it as well).  Its standard
input is a pipe from the agent: a line `leave` ends it for good, and the end of the pipe, also when the agent
was killed, ends it as for a restart.  So there is never a reflector that nobody looks after, nor two.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

import structlog

from bgpd.kube.options import KubeOptions

log = structlog.get_logger()

LEAVE = b"leave\n"
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
"""Seconds before a reflector that ended is started again, doubling; one that ran longer begins anew."""
NOT_STARTED = -1
"""In place of an exit code."""
PATIENCE = 20.0
"""Seconds that a reflector may take to leave."""
LAST_PATIENCE = 5.0
"""The same when the agent itself ends: a supervisor waits for it."""


def command(options: KubeOptions) -> list[str]:
    """The command line of the reflector."""
    words = [sys.executable, "-m", "bgpd", "reflector", "--kubernetes", "--with-parent"]
    words += ["--node", options.node, "--namespace", options.namespace]
    words += ["--state-dir", str(options.state_folder)]
    for flag, value in (
        ("--kubeconfig", options.kubeconfig),
        ("--server", options.server),
        ("--config", options.reflector_config),
    ):
        if value is not None:
            words += [flag, value]
    return words


class ReflectorChild:
    """At most one reflector."""

    def __init__(self, options: KubeOptions) -> None:
        self._command = command(options)
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._unwanted.set()
        self._for_good = False
        self.running = False

    def want(self, *, wanted: bool) -> None:
        """Whether there should be one."""
        if wanted == self.wanted:
            return
        log.info("this node reflects" if wanted else "this node reflects no more")
        now, then = (self._wanted, self._unwanted) if wanted else (self._unwanted, self._wanted)
        now.set()
        then.clear()

    @property
    def wanted(self) -> bool:
        """Whether there should be one."""
        return self._wanted.is_set()

    def leave(self) -> None:
        """The agent is about to end, and for good: the reflector must not end as for a restart."""
        self._for_good = True

    async def keep(self) -> None:
        """Start it when it is wanted, again when it ended, and end it when it is not."""
        wait = FIRST_WAIT
        while True:
            await self._wanted.wait()
            began = asyncio.get_running_loop().time()
            code = await self._run_once()
            if code is None:
                continue
            ran = asyncio.get_running_loop().time() - began
            wait = FIRST_WAIT if ran > LONGEST_WAIT else min(wait * 2, LONGEST_WAIT)
            log.error("the reflector ended: it is started again", code=code, seconds=wait)
            await asyncio.sleep(wait)

    async def _run_once(self) -> int | None:
        """Run one until it ends by itself (its exit code) or is not wanted any more (None)."""
        try:
            process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=DEVNULL)
        except OSError as error:  # no memory, or no process left: the agent's own work goes on
            log.warning("the reflector can't be started", reason=str(error))
            return NOT_STARTED
        self.running = True
        try:
            async with asyncio.TaskGroup() as waiting:
                ended = waiting.create_task(process.wait())
                unwanted = waiting.create_task(self._unwanted.wait())
                await asyncio.wait((ended, unwanted), return_when=asyncio.FIRST_COMPLETED)
                unwanted.cancel()
                if not ended.done():
                    await self._end(process)
                    return None
            return process.returncode
        finally:
            self.running = False
            if process.stdin is not None:
                if self._for_good:
                    process.stdin.write(LEAVE)
                process.stdin.close()
            await self._wait_for(process, LAST_PATIENCE)

    async def _end(self, process: Process) -> None:
        """Have it leave for good, so that routers and clients drop what it told them."""
        if process.stdin is not None:
            process.stdin.write(LEAVE)
        await self._wait_for(process, PATIENCE)

    async def _wait_for(self, process: Process, patience: float) -> None:
        """See it end, so that its port is free for the next one, and no dead process is left."""
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
