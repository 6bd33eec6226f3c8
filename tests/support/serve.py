"""Run the local servers for a process of another environment, until its end of the pipe closes.

    python -m tests.support.serve FOLDER

Prints the URLs of Cloud Storage and BigQuery.
"""

import sys
from pathlib import Path

from dcm2bq.local import servers
from tests.support.datasets import server_with_dataset


def main() -> None:
    """Serve until standard input ends."""
    folder = Path(sys.argv[1])
    with (
        servers.storage_server(folder) as storage,
        server_with_dataset(folder, storage) as bigquery,
    ):
        sys.stdout.write(f"{storage} {bigquery}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
