"""Every mail webhook of the public payload set is read as its table in the docs says."""

import pytest

from tests import email_payloads

pytestmark = pytest.mark.skipif(
    not email_payloads.PAYLOADS.exists(), reason="the folder shared/data is not at hand"
)


def test_the_table_of_mail_webhooks_is_what_the_code_does() -> None:
    assert email_payloads.TABLE.read_text(encoding="utf-8") == email_payloads.table()


def test_every_deviation_has_its_reason_and_no_reason_is_left_over() -> None:
    deviating = {each.payload for each in email_payloads.outcomes() if each.deviates}
    assert deviating == set(email_payloads.REASONS)
