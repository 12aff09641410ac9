"""The contract of ports.Table once more, over direct calls to a server on loopback (moto)."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from werkzeug.serving import make_server

from chalicelib import direct
from chalicelib.aws import DynamoTable
from infra.local.aws import ENVIRONMENT
from tests.conftest import TABLE
from tests.test_table import (  # noqa: F401  # run here with another table
    test_a_body_of_any_length_comes_back_by_every_way,
    test_a_deleted_item_is_gone_and_may_be_put_anew,
    test_a_query_takes_a_range_in_order,
    test_a_transaction_of_which_one_part_conflicts_writes_nothing,
    test_a_transaction_writes_everything,
    test_a_write_over_a_version_of_what_is_not_there_conflicts,
    test_a_write_over_another_version_changes_nothing,
    test_a_write_over_the_version_that_was_read_counts_it_up,
    test_an_item_comes_back_as_it_was_put,
    test_of_two_first_puts_one_wins_and_the_other_sees_it,
    test_the_due_index_holds_what_has_a_time_until_it_has_none,
    test_the_thread_index_holds_a_thread_in_order,
    test_what_was_never_put_is_not_there,
)


@pytest.fixture(scope="module")
def url(moto_process: None) -> Iterator[str]:
    """A server over the same moto that is in process here."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    from infra.local.front import QuietHandler

    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def table(moto_bucket: str, url: str) -> Iterator[DynamoTable]:
    """The table of the stack, called directly."""
    ours = direct.from_environment(ENVIRONMENT | {"AWS_ENDPOINT_URL": url})
    assert ours is not None
    with closing(ours):
        yield DynamoTable(TABLE, ours)


def test_several_items_are_got_at_once(table: DynamoTable) -> None:
    from tests.test_table import item, put

    put(table, item("A"), item("B"))
    found = table.get_all([("P", "A"), ("P", "B"), ("P", "C")])
    assert sorted(i.sk for i in found) == ["A", "B"]
