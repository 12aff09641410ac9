"""Tells roundup_adapter.py what agents do. Goes into the tracker's `detectors` folder.

In the tracker's detectors/config.ini:

    [askonce]
    url = http://127.0.0.1:8095/desk/<secret>
    user = askonce
"""

import json
import urllib.request


def tell(db, cl, nodeid, old):
    """The messages and the state that a change brought. Roundup itself does not try again."""
    user = db.user.get(db.getuid(), "username")
    if user == db.config.detectors["ASKONCE_USER"]:
        return
    before, status = (old or {}).get("messages", []), db.issue.get(nodeid, "status")
    new = [each for each in db.issue.get(nodeid, "messages") if each not in before]
    told = {
        "issue": nodeid,
        "activity": str(db.issue.get(nodeid, "activity")),
        "status": db.status.get(status, "name") if status else None,
        "status_changed": (old or {}).get("status", status) != status,
        "messages": [
            {
                "id": each,
                "author": db.user.get(db.msg.get(each, "author"), "username"),
                "content": db.msg.get(each, "content"),
            }
            for each in new
        ],
    }
    request = urllib.request.Request(  # noqa: S310  # our own adapter
        db.config.detectors["ASKONCE_URL"],
        json.dumps(told).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
    except OSError as error:
        db.get_logger().error("AskOnce's adapter does not answer: %s", type(error).__name__)


def init(db):
    """After the change is in the database, so that nobody waits for us."""
    db.issue.react("set", tell)
