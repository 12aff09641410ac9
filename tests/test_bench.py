"""`make bench` measures what it says: every connector and mode, genuine and hostile."""

from tests import bench
from tests.recorded import mode, one_of_each


def test_the_slowest_case_of_every_connector_is_measured() -> None:
    modes = {mode(sample) for sample in one_of_each()}
    assert {line.what for line in bench.genuine()} >= modes
    assert {line.what for line in bench.hostile()} == {f"{name}, hostile" for name in modes}
