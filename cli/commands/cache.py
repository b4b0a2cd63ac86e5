"""`imgdata cache`: what the cache folder holds, how much it may hold; empties it."""

import json
import time

import click

from ..options.common import json_option


@click.command(short_help="Show what the cache folder holds, and clear it.")
@click.option("--clear", is_flag=True, help="Remove everything.")
@json_option("the content")
def command(clear: bool, as_json: bool) -> None:
    """Show what the cache folder holds: decoded pictures of small datasets, facts of audits, what DALI can't decode.

    Everything can be made again. The folder is $IMGDATA_CACHE, else ~/.cache/imgdata. It may hold a tenth of its disk,
    or $IMGDATA_CACHE_GB times 10^9 bytes.

    \b
      imgdata cache
      imgdata cache --clear
    """  # noqa: D301
    from rich.filesize import decimal

    from imgdata.storage.cache_folder import cache_entries, cache_folder, cache_limit, clear_cache
    from imgdata.tables import new_table

    from ..display.console import GOOD, screen, tell

    entries = cache_entries()
    held = sum(entry.num_bytes for entry in entries)
    freed = clear_cache(entries) if clear else 0
    if as_json:
        rows = [
            {"what": one.what, "bytes": one.num_bytes, "files": [str(path) for path in one.files]} for one in entries
        ]
        click.echo(
            json.dumps(
                {"folder": str(cache_folder()), "limit": cache_limit(), "bytes": held, "freed": freed, "entries": rows}
            )
        )
        return
    console = screen(stderr=False)
    if clear:
        tell(console, GOOD, "cleared", f"{decimal(freed)}: {cache_folder()}")
        return
    table = new_table()
    table.add_column("what", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("written", no_wrap=True)
    # The one column that may be cut: where all may not, each loses its end.
    table.add_column("file", overflow="ellipsis")
    for entry in entries:
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.written_s))
        table.add_row(entry.what, decimal(entry.num_bytes), written, entry.files[-1].name)
    if entries:
        console.print(table)
        console.print()
    tell(console, GOOD, decimal(held), f"of {decimal(cache_limit())} at most: {cache_folder()}")
