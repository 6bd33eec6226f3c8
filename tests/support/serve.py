"""Run the local servers for a process of another environment, until its end of the pipe closes.

    python tests/support/serve.py FOLDER

Prints the URLs of Cloud Storage and BigQuery.
"""

import sys
from pathlib import Path

from dcm2bq.local import servers


def main() -> None:
    """Serve until standard input ends."""
    folder = Path(sys.argv[1])
    with (
        servers.storage_server(folder) as storage,
        servers.bigquery_server(folder, storage=storage) as bigquery,
    ):
        sys.stdout.write(f"{storage} {bigquery}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
