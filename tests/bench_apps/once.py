"""One invocation in a fresh process, as Lambda starts it: `python -ISB once.py FOLDER EVENT`."""

import json
import os
import sys
from pathlib import Path
from typing import Any


class Context:
    """What a handler is told of its invocation, as far as it is asked."""

    aws_request_id, function_name, memory_limit_in_mb = "1", "api_handler", 512

    def get_remaining_time_in_millis(self) -> int:
        return 20_000


def main() -> None:
    folder, event = sys.argv[1:]
    sys.path.insert(0, folder)
    import app

    answer: dict[str, Any] = app.app(json.loads(Path(event).read_bytes()), Context())
    sys.stdout.flush()
    os._exit(0 if answer["statusCode"] < 300 else 1)  # the end of a process is nobody's wait


if __name__ == "__main__":
    main()
