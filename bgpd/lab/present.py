"""What a person sees of a lab run: steps, progress, the proof, and how to explore.

Owns all output; it decides nothing.  On a terminal it has colours and a progress bar, elsewhere it is
plain lines.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bgpd.lab.converge import Count
from bgpd.lab.plan import Fabric, Plan
from bgpd.lab.prove import Answer

FABRICS = {
    Fabric.REFLECTOR: "one shared link, two route reflectors, iBGP",
    Fabric.MESH: "one shared link, iBGP full mesh",
    Fabric.FRR: "two FRR top-of-rack routers, eBGP, ECMP over both",
    Fabric.BIRD: "two BIRD top-of-rack routers, eBGP, ECMP over both",
}
TITLE_WIDTH = 30


class Presenter:
    """Prints one lab run."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    def title(self, name: str, plan: Plan) -> None:
        families = "IPv4 and IPv6" if plan.dual_stack else "IPv4"
        self.console.print(
            f"[bold]podbgp {name}[/]: {len(plan.nodes)} nodes, {len(plan.pods)} pods, "
            f"{FABRICS[plan.fabric]}, {families}"
        )
        table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
        for column in ("node", "AS", "address", "pod networks", "pods"):
            table.add_column(column)
        for node in plan.nodes:
            table.add_row(
                node.name,
                str(node.asn),
                _lines(node.addresses),
                _lines(node.pod_networks),
                _lines(*(pod.addresses for pod in node.pods)),
            )
        self.console.print(table)

    def step(self, text: str) -> None:
        """A part of the run begins."""
        spent = time.monotonic() - self._started
        self.console.print(f"\n[bold cyan]{text}[/] [dim]({spent:.1f} s)[/]")

    def say(self, text: str) -> None:
        self.console.print(f"  {escape(text)}")

    def verdict(self, title: str, good: bool, text: str) -> None:
        """One thing that was shown, or was not."""
        mark = "[green]yes[/]" if good else "[bold red]NO[/] "
        self.console.print(f"  {mark}  {title:<{TITLE_WIDTH}} {escape(text)}")

    def unanswered(self, answers: Sequence[Answer], limit: int = 10) -> None:
        """Name what failed, so that one knows where to look."""
        for answer in answers[:limit]:
            probe = answer.probe
            seen = f", seen as {answer.seen}" if answer.seen else ""
            self.console.print(
                f"       [red]{probe.source.name} to {probe.target.name} ({probe.address}){seen}[/] "
                f"{escape(answer.error)}"
            )
        if len(answers) > limit:
            self.console.print(f"       and {len(answers) - limit} more")

    @contextmanager
    def progress(self, title: str) -> Iterator[Count]:
        """A progress bar on a terminal; elsewhere a line whenever the number changes."""
        if not self.console.is_terminal:
            yield self._plain_counter(title)
            return
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.completed} of {task.total}"),
        )
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bar:
            task = bar.add_task(title, total=None)

            def count(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield count

    def _plain_counter(self, title: str) -> Count:
        last = -1

        def count(done: int, total: int) -> None:
            nonlocal last
            if done != last:
                last = done
                self.console.print(f"  {title}: {done} of {total}")

        return count

    def command(self, argv: Sequence[str]) -> None:
        """A command line that can be copied."""
        self.console.print(f"  [dim]$[/] {escape(shlex.join(argv))}")

    def failure(self, text: str) -> None:
        self.console.print(f"[bold red]failed:[/] {escape(text)}")

    def done(self, text: str) -> None:
        spent = time.monotonic() - self._started
        self.console.print(f"\n[bold green]{escape(text)}[/] [dim]({spent:.1f} s)[/]")


def _lines(*groups: Sequence[object]) -> str:
    return "\n".join("  ".join(map(str, group)) for group in groups)
